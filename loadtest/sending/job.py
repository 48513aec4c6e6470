"""One worker's share of one cell, from the first request to the last answer."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import aiohttp

from loadtest.client.exchange import Exchange, exchange
from loadtest.client.requests import Request, RequestMaker, Turn
from loadtest.records import Failure, Record
from loadtest.sending.health import LATE_AFTER
from loadtest.traffic.arrivals import ClosedLoop, Load, OpenLoop
from loadtest.traffic.plan import Extent
from loadtest.traffic.prompts import is_correct
from loadtest.traffic.schedule import (
    Due,
    Timing,
    closed_indices,
    open_schedule,
    session_of,
    share_of,
    timing_of,
)

# The server counts as gone after so many requests in a row without a connection, over so many
# seconds.
_GONE_REQUESTS = 10
_GONE_SECONDS = 1.0
# A user of a closed loop who could not connect waits so long before the next request.
_RETRY_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """A worker's share of a cell."""

    maker: RequestMaker
    urls: tuple[str, ...]
    """Of the servers that take turns, session by session."""
    load: Load
    extent: Extent
    worker: int
    workers: int
    max_in_flight: int
    """Of this worker, in an open loop."""
    turns: int = 1
    """Of a session."""


@dataclass(frozen=True)
class JobReport:
    """How far a job has come, and the records that are new since the last report."""

    due: int
    sent: int
    records: list[Record]
    gone: bool
    """The server cannot be reached any more."""


class JobRunner:
    """Runs a job. Created before the cell starts: the schedule is computed by then."""

    def __init__(self, job: Job, connections: aiohttp.ClientSession) -> None:
        self._job = job
        self._connections = connections
        self._start = 0.0
        self._slots = asyncio.Semaphore(job.max_in_flight)
        self._due = self._sent = 0
        self.late_sends = 0
        self._fresh: list[Record] = []
        self._unconnected: list[float] = []
        """When each of the latest requests failed to connect, with no other result in between."""
        self._timing = timing_of(job.load, job.extent, job.maker.seed, job.maker.repeat, job.turns)
        self._last_answer = _last_answer(self._timing, job.extent)
        self._drained = False
        self._dues = [] if isinstance(job.load, ClosedLoop) else self._my_dues(job.load)

    def _my_dues(self, load: OpenLoop) -> list[Due]:
        job = self._job
        schedule = open_schedule(load, job.extent, job.maker.seed, job.maker.repeat, job.turns)
        return [
            due
            for due in schedule.dues
            if session_of(due.index, job.turns)[0] % job.workers == job.worker
        ]

    def start_at(self, start: float) -> None:
        """Set the start of the cell, on `time.monotonic`."""
        self._start = start

    def _now(self) -> float:
        """Seconds since the cell's start."""
        return time.monotonic() - self._start

    async def run(self) -> None:
        """Send everything and wait for all answers. When cancelled, requests in flight are recorded
        as cut short."""
        load = self._job.load
        async with asyncio.TaskGroup() as group:
            if isinstance(load, ClosedLoop):
                await self._sleep_until(0.0)
                indices = self._closed_indices(load)
                for _ in range(share_of(load, self._job.worker, self._job.workers)):
                    group.create_task(self._user(indices))
            else:
                await self._send_when_due(group)

    def is_drained(self) -> bool:
        """Whether last answers have been awaited for long enough: the job should be cancelled. From
        then on, requests in flight are failures."""
        if self._last_answer is not None and self._now() >= self._last_answer:
            self._drained = True
        return self._drained

    def report(self) -> JobReport:
        """What is new since the last call."""
        fresh, self._fresh = self._fresh, []
        return JobReport(self._due, self._sent, fresh, self._is_gone())

    async def _send_when_due(self, group: asyncio.TaskGroup) -> None:
        for number, due in enumerate(self._dues):
            request = self._job.maker.make(due.index, due.measured)
            try:
                await self._sleep_until(due.time)
            except asyncio.CancelledError:
                self._give_up(self._dues[number:])
                raise
            self._due += 1
            group.create_task(self._session(request, due))

    async def _session(self, request: Request, due: Due) -> None:
        """A request of an open loop, and the later turns of its session, each when the one before
        is answered. What is due after the measured part is not measured."""
        job, timing = self._job, self._timing
        earlier = _longer([], request, await self._send_in_turn(request, due.time))
        for turn in range(1, job.turns):
            time = self._now()
            index = due.index + (turn if due.index >= 0 else -turn)
            if time >= _or_never(timing.sending_ends) or index == job.extent.requests:
                return
            measured = due.measured and time < _or_never(timing.window_ends)
            self._due += 1
            request = job.maker.make(index, measured, earlier)
            earlier = _longer(earlier, request, await self._send_in_turn(request, time))

    def _give_up(self, dues: list[Due]) -> None:
        """Record as cut short those that are due by now; later ones are not recorded."""
        for due in dues:
            if due.time <= self._now():
                self._due += 1
                self._note_cut(self._job.maker.make(due.index, due.measured), due.time, None)

    async def _send_in_turn(self, request: Request, due: float) -> str | None:
        """Send a request of an open loop once fewer than the maximum are in flight; the answer."""
        was_held = self._slots.locked()
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            self._note_cut(request, due, None)
            raise
        try:
            return await self._send(request, due, was_held)
        finally:
            self._slots.release()

    async def _user(self, indices: Iterator[tuple[int, bool]]) -> None:
        """One user of a closed loop: session after session, turn after turn."""
        while places := list(itertools.islice(indices, self._job.turns)):
            earlier: list[Turn] = []
            for place in places:
                due = self._now()
                if earlier and due >= self._end:
                    return
                self._due += 1
                request = self._job.maker.make(*place, earlier)
                answer = await self._send(request, due)
                earlier = _longer(earlier, request, answer)
                if self._unconnected:
                    await asyncio.sleep(_RETRY_SECONDS)

    @property
    def _end(self) -> float:
        """When a closed loop sends no more."""
        extent = self._job.extent
        return extent.warmup + (extent.seconds or float("inf"))

    def _closed_indices(self, load: ClosedLoop) -> Iterator[tuple[int, bool]]:
        """Index of the next request and whether it is measured; shared by all users."""
        job, extent = self._job, self._job.extent
        for index in closed_indices(load, job.worker, job.workers, None, job.turns):
            # Whole sessions: those that begin in the warm-up belong to it.
            if index % job.turns == 0 and self._now() >= extent.warmup:
                break
            yield -1 - index, False
        requests = closed_indices(load, job.worker, job.workers, extent.requests, job.turns)
        for index in requests:
            if index % job.turns == 0 and self._now() >= self._end:
                break
            yield index, True

    async def _send(self, request: Request, due: float, was_held: bool = False) -> str | None:
        """Send a request and record its result; the visible answer, None if it failed."""
        sent = self._now()
        self._sent += 1
        self.late_sends += not was_held and sent - due > LATE_AFTER
        job = self._job
        try:
            result = await exchange(
                self._connections,
                job.urls[self._server(request)],
                request,
                job.maker.counting,
                job.maker.target.timeout,
                self._now,
            )
        except asyncio.CancelledError:
            self._note_cut(request, due, sent)
            raise
        self._note_result(request, due, result)
        return None if result.problem else result.answer.text

    def _note_result(self, request: Request, due: float, result: Exchange) -> None:
        answer, problem = result.answer, result.problem
        failure = problem.failure if problem else None
        if failure is Failure.CONNECTION:
            self._unconnected.append(result.finished)
        else:
            self._unconnected.clear()
        correct = None
        if failure is None and request.expected is not None:
            correct = is_correct(answer.text, request.expected)
        self._fresh.append(
            self._record(request, due)(
                sent=result.sent,
                token_times=answer.token_times,
                reasoning_times=answer.reasoning_times,
                finished=result.finished,
                prompt_tokens=answer.usage.prompt_tokens if answer.usage else None,
                thought_tokens=answer.thought_tokens,
                threshold_in_force=answer.threshold_in_force,
                thoughts_counted=answer.thoughts,
                passes_counted=answer.passes,
                failure=failure,
                message=problem.message if problem else None,
                status=result.status,
                correct=correct,
            )
        )

    def _note_cut(self, request: Request, due: float, sent: float | None) -> None:
        failure = Failure.UNSENT if sent is None else Failure.CUT
        message = "the cell was cut short"
        if self._drained:
            failure = Failure.UNDRAINED
            message = f"not answered {self._job.extent.drain:g} s after the last request was due"
        self._fresh.append(
            self._record(request, due)(
                sent=sent, finished=self._now(), failure=failure, message=message
            )
        )

    def _record(self, request: Request, due: float) -> Callable[..., Record]:
        """The constructor of a request's record, without the fields of its result."""
        return partial(
            Record,
            index=request.index,
            worker=self._job.worker,
            server=self._server(request),
            budget=request.asked.budget,
            threshold=request.asked.threshold,
            turn=request.turn,
            warmup=not request.measured,
            scheduled=due,
            asked_tokens=request.asked.tokens,
        )

    def _server(self, request: Request) -> int:
        session, _ = session_of(request.index, self._job.turns)
        return session % len(self._job.urls)

    def _is_gone(self) -> bool:
        failed = self._unconnected
        return len(failed) >= _GONE_REQUESTS and failed[-1] - failed[0] >= _GONE_SECONDS

    async def _sleep_until(self, due: float) -> None:
        # uvloop's timers have a resolution of one millisecond, and may fire half of one early.
        while (pause := due - self._now()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(pause)


def _last_answer(timing: Timing, extent: Extent) -> float | None:
    """When answers are awaited no longer, in seconds from the start; None = whenever they come."""
    sending, drain = timing.sending_ends, extent.drain
    return None if sending is None or drain is None else sending + drain


def _or_never(time: float | None) -> float:
    return float("inf") if time is None else time


def _longer(earlier: list[Turn], request: Request, answer: str | None) -> list[Turn]:
    """A session with one more turn. A turn without an answer begins a new one."""
    return [] if answer is None else [*earlier, Turn(request.text, answer)]
