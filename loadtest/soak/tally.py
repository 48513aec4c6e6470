"""Counts of requests and faults, and whether the server passed."""

from collections import Counter
from dataclasses import dataclass, field

from loadtest.records import Cell, Failure, Record

_MAX_EXAMPLES = 5
FAILED = "failed"
ACCEPTED = "bad request accepted"
LEAKED = "thoughts shown to a request that did not ask"
DIFFERENT = "answer other than the same request's alone"
"""These four are the kinds of faults."""


@dataclass
class Tally:
    """Counts over a whole soak. Memory is in MiB; None where it cannot be seen."""

    sent: int = 0
    answered: int = 0
    left: int = 0
    bad_refused: int = 0
    """Bad requests that were answered with 4xx."""
    overload_refused: int = 0
    """Good requests that were answered with 429."""
    asked_again: int = 0
    """Known requests whose answers were compared."""
    thought_tokens: int = 0
    visible_tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    memory_at_start: float | None = None
    memory_at_end: float | None = None

    def fault(self, kind: str, example: str) -> None:
        """Count a fault; the first few are shown in the report."""
        self.faults[kind] += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{kind}: {example[:300]}")

    def add_measured(self, cell: Cell) -> None:
        """Count the measured requests, too."""
        for record in cell.records:
            self._add_record(record)

    def _add_record(self, record: Record) -> None:
        if record.failure in (Failure.UNSENT, Failure.CUT):
            return
        self.sent += 1
        if record.failure is None:
            self.answered += 1
            self.visible_tokens += record.visible_tokens
            self.thought_tokens += record.thought_tokens or 0
        elif record.failure is Failure.REFUSED:
            self.overload_refused += 1
        else:
            self.fault(FAILED, f"measured: {record.failure}: {record.message}")

    @property
    def growth(self) -> float:
        """Of the memory, in MiB."""
        if self.memory_at_start is None or self.memory_at_end is None:
            return 0.0
        return self.memory_at_end - self.memory_at_start

    def wrongs(self, max_growth: float, tolerate_differences: bool) -> list[str]:
        """What makes the soak a failure, one phrase for each reason."""
        tolerated = {DIFFERENT} if tolerate_differences else set()
        faults = {kind: count for kind, count in self.faults.items() if kind not in tolerated}
        wrongs = [f"{count} × {kind}" for kind, count in faults.items()]
        if self.growth > max_growth:
            wrongs.append(f"memory grew by {self.growth:.0f} MiB, {max_growth:.0f} are allowed")
        if not self.answered:
            wrongs.append("no request was answered")
        return wrongs

    def line(self) -> str:
        """The counts in one line, while the soak runs."""
        return (
            f"{self.sent} sent, {self.answered} answered, "
            f"{self.bad_refused + self.overload_refused} refused, {self.left} left, "
            f"{self.faults.total()} faults"
        )

    def report(self) -> str:
        """All counts, one per line, and examples of faults."""
        faults = self.faults
        lines = {
            "requests sent": self.sent,
            "answered": self.answered,
            "clients that left": self.left,
            "bad requests refused": self.bad_refused,
            "refused for overload (429)": self.overload_refused,
            "failed": faults[FAILED],
            "bad requests accepted": faults[ACCEPTED],
            "thoughts shown without being asked for": faults[LEAKED],
            "answers asked for again": self.asked_again,
            "of these, other than alone": faults[DIFFERENT],
            "visible tokens": self.visible_tokens,
            "thought tokens": self.thought_tokens,
            "memory at the start, MiB": _mib(self.memory_at_start),
            "memory at the end, MiB": _mib(self.memory_at_end),
        }
        width = max(map(len, lines))
        text = [f"{name:{width}}  {value}" for name, value in lines.items()]
        return "\n".join([*text, *self.examples])


def _mib(number: float | None) -> str:
    return "not seen" if number is None else f"{number:.0f}"
