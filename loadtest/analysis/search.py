"""The highest rate at which a service level holds.

From a starting rate upwards (or downwards) by a factor until one rate holds and one does not, then
geometric bisection between the two. A rate is judged from two or more repeats. A service level is a
share of requests that may miss a limit, so what was measured is a share with a Wilson interval, for
the number of independent requests that the measured ones are worth (`LevelVerdict`). A rate holds
if the interval of all repeats together lies below what is allowed and every repeat by itself
agrees; it fails if the interval lies above it and every repeat agrees; otherwise it is repeated. If
the last repeat is still inconclusive, the majority of the repeats decides, so that one hiccup does
not, and the decision is called close. A rate that the server does not keep up with fails, however
fast its answers were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.analysis.figures import figures, measured
from loadtest.analysis.levels import Level, LevelVerdict, verdicts
from loadtest.analysis.steps import keeps_up
from loadtest.records import Cell

Measure = Callable[[float, int], Cell]
"""From a rate and the number of the repeat to a cell."""

CLIENT_LATE = 0.01
"""The share of requests sent late by the client, above which the client is the limit."""


@dataclass(frozen=True)
class SearchRange:
    """Bounds of the search. At the end the failing rate is at most 1 + `precision` times the one
    that holds."""

    start: float = 1.0
    step: float = 2.0
    precision: float = 0.1
    lowest: float = 0.05
    highest: float = 10_000.0
    fewest_repeats: int = 2
    most_repeats: int = 5


@dataclass(frozen=True)
class Judged:
    """A rate, and whether the levels hold at it."""

    rate: float
    holds: bool
    close: bool
    """Inconclusive: more or longer repeats could change the decision."""
    kept_up: bool
    client_limited: bool
    repeats: int
    verdicts: tuple[LevelVerdict, ...]


@dataclass(frozen=True)
class Found:
    """The result: `best` is the highest rate that holds, `failing` the lowest that does not."""

    best: Judged | None
    failing: Judged | None
    judged: tuple[Judged, ...]
    interrupted: bool = False

    @property
    def client_limited(self) -> bool:
        """Whether the search ended because the client could send no faster."""
        return any(judged.client_limited for judged in self.judged)


class Interrupted(Exception):
    """A cell was cut short, so that its rate cannot be judged."""


def search(measure: Measure, levels: Sequence[Level], limits: SearchRange) -> Found:
    """Search; ends early, with `interrupted`, where a cell is cut short."""
    judged: list[Judged] = []

    def holds(rate: float) -> bool:
        judged.append(judge_rate(measure, rate, levels, limits))
        return judged[-1].holds

    interrupted = False
    try:
        low, high = _bracket(holds, limits, judged)
        while low and high and high / low > 1 + limits.precision:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if holds(middle) else (low, middle)
    except Interrupted:
        interrupted = True
    return Found(
        best=max((j for j in judged if j.holds), key=lambda j: j.rate, default=None),
        failing=min((j for j in judged if not j.holds), key=lambda j: j.rate, default=None),
        judged=tuple(judged),
        interrupted=interrupted,
    )


def _bracket(
    holds: Callable[[float], bool], limits: SearchRange, judged: Sequence[Judged]
) -> tuple[float | None, float | None]:
    """A rate that holds and one that fails; None if there is no such rate."""
    rate = limits.start
    if holds(rate):
        while rate < limits.highest:
            low, rate = rate, min(rate * limits.step, limits.highest)
            if not holds(rate):
                return (low, None) if judged[-1].client_limited else (low, rate)
        return rate, None
    while rate > limits.lowest and not judged[-1].client_limited:
        high, rate = rate, max(rate / limits.step, limits.lowest)
        if holds(rate):
            return rate, high
    return None, rate


def judge_rate(
    measure: Measure, rate: float, levels: Sequence[Level], limits: SearchRange
) -> Judged:
    """Repeat a rate until it is decided; raises `Interrupted`."""
    cells: list[Cell] = []
    while True:
        cells.append(measure(rate, len(cells)))
        if cells[-1].partial:
            raise Interrupted
        together = verdicts(levels, (measured(cell.records) for cell in cells))
        alone = [_holds(levels, cell) for cell in cells]
        decided = _decided(together, alone, kept_up(cells))
        if len(cells) < limits.fewest_repeats:
            continue
        # In most repeats: a client that was late once is not the limit.
        limited = sum(map(client_limits, cells)) > len(cells) / 2
        if decided is not None or limited or len(cells) >= limits.most_repeats:
            return Judged(
                rate=rate,
                holds=sum(alone) > len(alone) / 2 if decided is None else decided,
                close=decided is None,
                kept_up=kept_up(cells),
                client_limited=limited,
                repeats=len(cells),
                verdicts=tuple(together),
            )


def _decided(together: Sequence[LevelVerdict], alone: Sequence[bool], in_time: bool) -> bool | None:
    if all(alone) and all(verdict.holds is True for verdict in together):
        return True
    failed = not in_time or any(verdict.holds is False for verdict in together)
    return False if failed and not any(alone) else None


def _holds(levels: Sequence[Level], cell: Cell) -> bool:
    """Whether one repeat holds as it was measured."""
    judged = verdicts(levels, [measured(cell.records)])
    return kept_up([cell]) and all(verdict.holds_as_measured for verdict in judged)


def kept_up(cells: Sequence[Cell]) -> bool:
    """Whether about as many answers were completed as were due, within three standard errors."""
    found = [figures(cell) for cell in cells]
    due = sum(f.requests for f in found)
    completed = sum(f.completed_rate * f.seconds for f in found)
    return keeps_up(due, completed)


def client_limits(cell: Cell) -> bool:
    """Whether the client, and not the server, was late."""
    if cell.client is None:
        return False
    return cell.client.late_sends > max(1.0, CLIENT_LATE * len(measured(cell.records)))


def sentence(name: str, found: Found) -> str:
    """The result in words."""
    if found.interrupted:
        ending = "; the search was cut short"
    elif found.client_limited:
        ending = "; limited by the client, not the server: more --workers, or another machine"
    else:
        ending = ""
    if found.best is None:
        lowest = found.failing.rate if found.failing else None
        tried = f"not even at {lowest:.3g} requests per second" if lowest else "nothing was decided"
        return f"budget {name}: {tried}{ending}"
    text = f"budget {name}: holds at {found.best.rate:.3g} requests per second"
    if found.failing is not None and not found.failing.client_limited:
        text += f", fails at {found.failing.rate:.3g}"
    if found.best.close or (found.failing and found.failing.close):
        text += " (a close decision: longer or more repeats would make it sure)"
    return text + ending
