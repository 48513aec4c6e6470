"""A worker process: sends its share of each cell's requests from one event loop.

Messages pass through a pipe. It receives `Job`s, `Start` and `Cut`; it sends `Ready`, any number of
`JobReport`s and, at the end of each job, `Done`.
"""

import asyncio
import contextlib
import gc
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

import uvloop

from loadtest.client.exchange import allow_many_connections, open_session
from loadtest.client.requests import headers
from loadtest.sending.health import HealthWatch, WorkerHealth
from loadtest.sending.job import Job, JobRunner

REPORT_SECONDS = 0.25


@dataclass(frozen=True)
class Ready:
    """The schedule is computed; the job can start."""


@dataclass(frozen=True)
class Start:
    """Start the job at this time of `time.monotonic`, which all processes share."""

    at: float


@dataclass(frozen=True)
class Cut:
    """End the job now."""


@dataclass(frozen=True)
class Done:
    """The job has ended; every record has been reported."""

    health: WorkerHealth


Order: TypeAlias = Job | Start | Cut


def work(orders: Connection) -> None:
    """Main function of the process: run jobs until the pipe closes."""
    # Modules stay loaded: the garbage collector need not look at them again.
    gc.collect()
    gc.freeze()
    allow_many_connections()
    # Raised when the main process has ended.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        uvloop.run(_Worker(orders).run())


class _Worker:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._orders: asyncio.Queue[Order | None] = asyncio.Queue()

    async def run(self) -> None:
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._receive)
        # libuv makes the pipe non-blocking, but long messages are received and sent in parts.
        os.set_blocking(self._pipe.fileno(), True)
        while (order := await self._orders.get()) is not None:
            # A cut may come when the job has just ended.
            if isinstance(order, Job):
                await self._do(order)

    def _receive(self) -> None:
        try:
            self._orders.put_nowait(self._pipe.recv())
        except (EOFError, ConnectionResetError):
            self._orders.put_nowait(None)  # the main process has ended
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    async def _do(self, job: Job) -> None:
        async with open_session(headers(job.maker.target)) as session:
            runner = JobRunner(job, session)
            self._pipe.send(Ready())
            start = await self._orders.get()
            if not isinstance(start, Start):
                return  # cut before it began
            runner.start_at(start.at)
            watch = HealthWatch()
            work = asyncio.create_task(runner.run())
            cut = asyncio.create_task(self._orders.get())
            while not work.done():
                await asyncio.wait(
                    {work, cut}, timeout=REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if (cut.done() or runner.is_drained()) and not work.done():
                    work.cancel()
                    await asyncio.wait({work})
                self._pipe.send(runner.report())
            cut.cancel()
            health = watch.result(runner.late_sends)
        self._pipe.send(runner.report())
        self._pipe.send(Done(health))
        if not work.cancelled():
            work.result()  # raises if there is a bug in the load tester
