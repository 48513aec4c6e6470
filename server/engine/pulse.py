"""Whether the engine still replies: it can hang without having died."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pulse:
    """Asks the engine one thing at a time, when somebody wants to know whether it replies.

    An idle engine replies at once, a busy one between two steps.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._question: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    def silence(self) -> float:
        """For how many seconds the engine has not replied to what it was asked in an earlier call;
        0 where it has. Asks again then, and does not wait for the reply.
        """
        if self._question is not None and not self._question.done():
            return self._clock() - self._asked_at
        self._question = asyncio.create_task(self._wait_for_reply())
        self._asked_at = self._clock()
        return 0.0

    async def _wait_for_reply(self) -> None:
        try:
            await self._ask()
        except Exception:
            # A dead engine fails in many ways, all reported elsewhere.
            return
