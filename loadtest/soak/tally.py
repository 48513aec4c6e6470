"""What came of it all, and whether it is right."""

from collections import Counter
from dataclasses import dataclass, field

_MAX_EXAMPLES = 5
# Kinds of faults.
FAILED = "failed"
ACCEPTED = "bad request accepted"
LEAKED = "thoughts shown to a request that did not ask"
DIFFERENT = "answer other than the same request's alone"


@dataclass
class Tally:
    """Counts of requests and of faults. Memory is in MiB; None where it cannot be seen."""

    sent: int = 0
    answered: int = 0
    left: int = 0
    # 4xx to bad requests, and 429 to good ones.
    bad_refused: int = 0
    overload_refused: int = 0
    asked_again: int = 0
    thought_tokens: int = 0
    visible_tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    memory_at_start: float | None = None
    memory_at_end: float | None = None

    def fault(self, kind: str, example: str) -> None:
        """Note something wrong; the first few are shown."""
        self.faults[kind] += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{kind}: {example[:300]}")

    @property
    def growth(self) -> float:
        if self.memory_at_start is None or self.memory_at_end is None:
            return 0.0
        return self.memory_at_end - self.memory_at_start

    def wrongs(self, max_growth: float, tolerate_differences: bool) -> list[str]:
        """What makes the run a failure, in words."""
        tolerated = {DIFFERENT} if tolerate_differences else set()
        faults = {kind: count for kind, count in self.faults.items() if kind not in tolerated}
        wrongs = [f"{count} × {kind}" for kind, count in faults.items()]
        if self.growth > max_growth:
            wrongs.append(f"memory grew by {self.growth:.0f} MiB, {max_growth:.0f} are allowed")
        if not self.answered:
            wrongs.append("no request was answered")
        return wrongs

    def line(self) -> str:
        """Progress in one line."""
        return (
            f"{self.sent} sent, {self.answered} answered, "
            f"{self.bad_refused + self.overload_refused} refused, {self.left} left, "
            f"{self.faults.total()} faults"
        )

    def report(self) -> str:
        """All of it, one fact per line."""
        faults = self.faults
        lines = {
            "requests sent": self.sent,
            "answered": self.answered,
            "clients that left": self.left,
            "bad requests refused": self.bad_refused,
            "refused for overload (429)": self.overload_refused,
            "failed": faults[FAILED],
            "bad requests accepted": faults[ACCEPTED],
            "thoughts shown to who did not ask": faults[LEAKED],
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
