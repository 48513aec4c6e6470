"""Stops a cell that fails too often, or whose server falls ever further behind."""

from collections import deque
from collections.abc import Sequence
from statistics import median

from loadtest.records import Record
from loadtest.sending.pool import Collected
from loadtest.traffic.arrivals import ClosedLoop, Load
from loadtest.traffic.plan import StopRules

FEWEST = 20
"""Finished requests from which on a share of failures means something."""
SPAN = 5.0
"""Seconds of each of the two spans in which a server must have fallen behind."""
KEPT = 0.9
"""The share of requests due that it must complete to keep up."""
SLOWER = 1.5
"""Times as long as its fastest span: a server that has just begun completes little, too."""


class StopWatch:
    """Watches one cell."""

    def __init__(self, rules: StopRules, load: Load) -> None:
        self._rules = rules
        self._saturates = rules.over_saturation and not isinstance(load, ClosedLoop)
        self._seen: deque[tuple[float, int, int]] = deque()
        """Time, requests due and finished."""
        self._ended: deque[tuple[float, float]] = deque()
        """When the latest requests were answered, and how long that took."""
        self._fastest = float("inf")

    def reason(self, collected: Collected) -> str | None:
        """Why the cell should stop now, in words."""
        return self._too_many_failures(collected) or self._falling_behind(collected)

    def _too_many_failures(self, collected: Collected) -> str | None:
        most, finished = self._rules.error_rate, len(collected.records)
        failed = collected.failures.total()
        if most is None or finished < FEWEST or failed <= most * finished:
            return None
        return f"{failed} of {finished} requests failed, more than the allowed {most:.1%}"

    def _falling_behind(self, collected: Collected) -> str | None:
        if not self._saturates:
            return None
        now = collected.elapsed
        self._note(collected.fresh, now)
        self._seen.append((now, collected.due, len(collected.records)))
        while self._seen[0][0] < now - 2 * SPAN - 1:
            self._seen.popleft()
        spans = [self._span(now - 2 * SPAN, now - SPAN), self._span(now - SPAN, now)]
        if not all(span and _is_behind(*span) for span in spans) or not self._is_slower():
            return None
        due, done = (sum(span[part] for span in spans if span) for part in (0, 1))
        return (
            f"over-saturated: in the last {2 * SPAN:.0f} s {due} requests were due and {done} "
            f"finished, {collected.due - len(collected.records)} are waiting"
        )

    def _note(self, fresh: Sequence[Record], now: float) -> None:
        self._ended += [
            (record.finished, record.end_to_end)
            for record in fresh
            if record.failure is None and record.finished is not None
        ]
        while self._ended and self._ended[0][0] < now - SPAN:
            self._ended.popleft()
        if len(self._ended) >= FEWEST // 4:
            self._fastest = min(self._fastest, self._latency)

    @property
    def _latency(self) -> float:
        return median(seconds for _, seconds in self._ended)

    def _is_slower(self) -> bool:
        """Whether answers take longer than they did; where none came lately, they do."""
        if self._fastest == float("inf"):
            return False
        return not self._ended or self._latency > SLOWER * self._fastest

    def _span(self, start: float, end: float) -> tuple[int, int] | None:
        """Requests due and finished between two times; None where the first was not seen."""
        before = [seen for seen in self._seen if seen[0] <= start]
        within = [seen for seen in self._seen if seen[0] <= end]
        if not before:
            return None
        return within[-1][1] - before[-1][1], within[-1][2] - before[-1][2]


def _is_behind(due: int, done: int) -> bool:
    """Beyond what chance makes of Poisson arrivals."""
    return done < KEPT * due and due - done > 3 * due**0.5
