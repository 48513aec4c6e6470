"""What watchers of a running load test are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from loadtest.records import Cell, Failure, Record
from loadtest.traffic.budgets import BudgetMix


class Phase(StrEnum):
    """The part of a cell that is running."""

    WARMUP = "warm-up"
    MEASURING = "measuring"
    DRAINING = "waiting for the last answers"


@dataclass(frozen=True)
class Upcoming:
    """A cell that is about to start."""

    number: int
    """Counts from 0 over the whole run."""
    total: int | None
    """How many cells there will be; None where that depends on the results (a search)."""
    budgets: BudgetMix
    threshold: float | None
    load: str
    repeat: int
    seconds: float | None
    """How long it will send, warm-up included, where its extent is a time."""
    requests: int | None
    """How many requests it will measure, where its extent is a number."""


@dataclass(frozen=True)
class Snapshot:
    """How far a cell has come. Counts are those of the cell up to now, warm-up included."""

    elapsed: float
    phase: Phase
    due: int
    sent: int
    finished: int
    """Succeeded or failed."""
    failures: Mapping[Failure, int]
    fresh: Sequence[Record]
    """What has finished since the last snapshot; every record is in exactly one of them."""

    @property
    def in_flight(self) -> int:
        """Sent and not finished."""
        return self.sent - self.finished

    @property
    def waiting(self) -> int:
        """Due and not sent: the client's own queue."""
        return self.due - self.sent


class Progress(Protocol):
    """A watcher. Called in the main process only, a few times per second, so that its CPU time is
    not taken from the workers."""

    def started(self, cell: Upcoming) -> None:
        """A cell starts."""

    def update(self, snapshot: Snapshot) -> None:
        """The cell has made progress."""

    def finished(self, cell: Cell) -> None:
        """The cell is complete, or as complete as it will be (`cell.partial`)."""


class NoWatcher:
    """A watcher that does nothing."""

    def started(self, cell: Upcoming) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        pass

    def finished(self, cell: Cell) -> None:
        pass
