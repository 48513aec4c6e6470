"""The clients of a soak in a thread of their own, while the main thread measures."""

import asyncio
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, Self, TypeVar

import httpx

from loadtest.client.probe import ServerFacts
from loadtest.client.requests import headers
from loadtest.errors import LoadTestError
from loadtest.soak.actions import ActionPlan
from loadtest.soak.clients import SoakClients
from loadtest.soak.memory import listening_process, memory_of
from loadtest.soak.tally import FAILED, Tally
from loadtest.traffic.plan import Target

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class SoakSettings:
    """How many clients act, for how long, and whose memory is watched."""

    clients: int
    warmup: float
    """Seconds before the memory is measured for the first time: buffers that every server allocates
    once are no leak."""
    seconds: float
    seed: int
    pid: int | None
    """None = the process that listens at the server's port on this machine."""


class BackgroundClients:
    """Clients that act from `start` to `finish`, in a `with` block."""

    def __init__(self, settings: SoakSettings, target: Target, facts: ServerFacts) -> None:
        self.tally = Tally()
        self._settings = settings
        self._facts = facts
        self._pid = settings.pid or listening_process(facts.url)
        self._http = httpx.AsyncClient(
            base_url=facts.url,
            headers=headers(target),
            timeout=target.timeout,
            limits=httpx.Limits(max_connections=None),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Send the known requests one by one; raises `LoadTestError` where that fails."""
        self._thread.start()
        _say(f"seed {self._settings.seed}, server process {self._pid or 'not found'}")
        try:
            self._clients = self._submit(self._prepare()).result()
        except httpx.HTTPError as error:
            self._close()
            raise LoadTestError(
                f"{self._facts.url} does not answer as it should: {error}"
            ) from error
        return self

    def start(self) -> None:
        """Let the clients act."""
        self._acting = self._submit(self._act())

    def finish(self) -> None:
        """Wait until the clients have acted for their time; those that wait get their answers."""
        self._acting.result()
        try:
            # Once more alone: the server still answers, and has nothing else to do.
            self._submit(self._clients.ask_alone()).result()
        except httpx.HTTPError as error:
            self.tally.fault(FAILED, f"known requests at the end: {error!r}")
        self.tally.memory_at_end = memory_of(self._pid)

    def stop(self) -> None:
        """Let the clients begin nothing new."""
        self._clients.stop()

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        self._submit(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, coroutine: Coroutine[Any, Any, _Result]) -> "Future[_Result]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _prepare(self) -> SoakClients:
        facts = self._facts
        assert facts.max_thought_budget is not None
        asks = {"model": facts.model, "prompt": "a", "max_tokens": 1, "return_thoughts": True}
        shows = (await self._http.post("/v1/completions", json=asks)).is_success
        plan = ActionPlan(facts.model, facts.max_thought_budget, shows, self._settings.seed)
        clients = SoakClients(self._http, plan, self.tally)
        await clients.ask_alone()
        return clients

    async def _act(self) -> None:
        settings = self._settings
        await self._clients.run(settings.clients, settings.warmup, lambda _: None)
        self.tally.memory_at_start = memory_of(self._pid)
        await self._clients.run(settings.clients, settings.seconds, self._show_progress)

    def _show_progress(self, seconds: float) -> None:
        _say(f"{seconds:5.0f} s: {self.tally.line()}")

    async def _end(self) -> None:
        """Cancel whatever still runs."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._http.aclose()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
