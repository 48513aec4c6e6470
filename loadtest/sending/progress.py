"""What a running load test tells whoever watches it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from loadtest.records import Cell, Failure, Record


class Phase(StrEnum):
    """What a cell is doing."""

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
    budgets: str
    """As on the command line: `8`, `0:0.5,4:0.5`, `none`."""
    load: str
    repeat: int
    seconds: float | None
    """How long it will send, warm-up included, where its extent is a time."""
    requests: int | None
    """How many requests it will measure, where its extent is a number."""


@dataclass(frozen=True)
class Snapshot:
    """How far a cell is. Counts are of the cell up to now, warm-up included."""

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
    """A watcher. Called from the main process only, a few times per second; what it spends is
    not spent by those who send."""

    def started(self, cell: Upcoming) -> None:
        """A cell starts to send."""

    def update(self, snapshot: Snapshot) -> None:
        """The cell goes on."""

    def finished(self, cell: Cell) -> None:
        """The cell is complete, or as complete as it will be (`cell.partial`)."""


class NoWatcher:
    """The watcher that does not watch."""

    def started(self, cell: Upcoming) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        pass

    def finished(self, cell: Cell) -> None:
        pass
