"""How long one request may take."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from server.errors import OutOfTime

_T = TypeVar("_T")
# What is sent may take so long, in seconds, even when the time is up: the error that says so.
_SECONDS_TO_SEND = 2.0


class TimeLimit:
    """The time of one request, from the construction of this object. 0 seconds = no limit.

    Work that is still running when the time is up is cancelled, which aborts it in the engine.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds if seconds else None

    async def wait_for(self, work: Awaitable[_T]) -> _T:
        """The work's result; raises `OutOfTime`."""
        return await self._until(self._end, work)

    async def wait_for_sending(self, sending: Awaitable[_T]) -> _T:
        """The same for a part of the response, which a client that does not read holds up. When the
        time is up it has two seconds more, for the error that says so."""
        now = asyncio.get_running_loop().time()
        return await self._until(self._end and max(self._end, now + _SECONDS_TO_SEND), sending)

    async def _until(self, end: float | None, work: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout_at(end) as timeout:
                result = await work
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._error() from None
        # vLLM turns its cancellation into a response.
        if timeout.expired():
            raise self._error()
        return result

    async def limit(self, items: AsyncGenerator[_T]) -> AsyncGenerator[_T]:
        """What a generator yields until the time is up; then raises `OutOfTime`."""
        async with aclosing(items):
            while True:
                try:
                    item = await self.wait_for(anext(items))
                except StopAsyncIteration:
                    return
                yield item

    def _error(self) -> OutOfTime:
        return OutOfTime(
            f"the request took longer than the {self._seconds:g} s that this server allows, "
            "waiting included: ask for fewer tokens or shorter thoughts",
            # OpenAI's client would send the same request again, at once.
            headers={"x-should-retry": "false"},
        )
