"""The worker processes, as the main process controls them."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from loadtest.errors import LoadTestError
from loadtest.records import Failure, Record
from loadtest.sending.health import WorkerHealth
from loadtest.sending.interrupts import Interrupts, ignored_interrupts
from loadtest.sending.job import Job, JobReport
from loadtest.sending.worker import REPORT_SECONDS, Cut, Done, Order, Ready, Start, work

# From the order to start to the start, so that the order reaches all workers in time.
_LEAD_SECONDS = 0.1
# A worker that is told to end does so at once; it is killed after that.
_STOP_SECONDS = 10.0


@dataclass
class Collected:
    """What the workers have reported of a cell so far."""

    start: float = 0.0
    """On `time.monotonic`."""
    elapsed: float = 0.0
    due: int = 0
    sent: int = 0
    failures: Counter[Failure] = field(default_factory=Counter)
    records: list[Record] = field(default_factory=list)
    fresh: list[Record] = field(default_factory=list)
    """Those of `records` that are new since the last report."""
    health: list[WorkerHealth] = field(default_factory=list)
    cut: str | None = None
    """Why it was cut short, in words."""
    cut_at: float | None = None
    stop: str | None = None
    """Set by the caller to end it: why, in words."""


class Pool:
    """Worker processes; all of them work on the same cell."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs,), daemon=True)
            with ignored_interrupts():
                process.start()
            theirs.close()  # so that the end of the process ends the pipe
            self._processes.append(process)
            self._pipes.append(ours)

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()

    def run(self, jobs: Sequence[Job], interrupts: Interrupts) -> Iterator[Collected]:
        """Run a job in each process, and yield what they have reported whenever there is something
        new; what is yielded last is complete.

        Ctrl-C, a server that cannot be reached any more and a worker that dies cut the cell short.
        """
        collected = Collected()
        self._tell(jobs)
        self._wait_until_ready()
        collected.start = time.monotonic() + _LEAD_SECONDS
        self._tell([Start(collected.start)] * len(jobs))
        reports: dict[Connection, JobReport] = {}
        running = set(self._pipes)
        while running:
            self._collect(running, reports, collected)
            collected.elapsed = max(0.0, time.monotonic() - collected.start)
            if interrupts.seen:
                self._cut(collected, "interrupted with Ctrl-C")
            if any(report.gone for report in reports.values()):
                self._cut(collected, "the server cannot be reached any more")
            yield collected
            if collected.stop is not None:
                self._cut(collected, collected.stop)
            collected.fresh = []

    def _tell(self, orders: Sequence[Order]) -> None:
        for pipe, order in zip(self._pipes, orders, strict=True):
            try:
                pipe.send(order)
            except OSError:  # the process has ended, which is noticed when its pipe is read
                continue

    def _wait_until_ready(self) -> None:
        for pipe in self._pipes:
            try:
                message = pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                raise LoadTestError(
                    "a worker process ended before it began; what it printed says why"
                ) from error
            assert isinstance(message, Ready)

    def _cut(self, collected: Collected, reason: str) -> None:
        if collected.cut is not None:
            return
        collected.cut = reason
        collected.cut_at = max(0.0, time.monotonic() - collected.start)
        self._tell([Cut()] * len(self._pipes))

    def _collect(
        self,
        running: set[Connection],
        reports: dict[Connection, JobReport],
        collected: Collected,
    ) -> None:
        """Wait for reports of the workers and collect them."""
        for pipe in wait(list(running), timeout=REPORT_SECONDS):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except (EOFError, ConnectionResetError):
                running.remove(pipe)
                self._cut(collected, "a worker process died")
                continue
            if isinstance(message, Done):
                running.remove(pipe)
                collected.health.append(message.health)
            else:
                reports[pipe] = message
                _add(collected, message.records)
        collected.due = sum(report.due for report in reports.values())
        collected.sent = sum(report.sent for report in reports.values())


def _add(collected: Collected, records: list[Record]) -> None:
    collected.records += records
    collected.fresh += records
    collected.failures.update(record.failure for record in records if record.failure)
