"""What a thought token costs.

The time per visible token grows with the thought tokens x for each about as t(x) = t₀ + c·x: each
is a pass of the model. Where every token is thought about, x is the budget; where a gate skips
some, it is what was really thought. The slope c is the price of a thought token in seconds,
c / t(0) its price in visible tokens, with t(0) as measured if there was a budget 0, else as fitted.

Of a server that reasons before it answers, the time of a whole answer grows with its thought
tokens: the same line, through mean times of answers over thought tokens per answer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.figures import budget_name, measured
from loadtest.analysis.intervals import Interval
from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.settings import Setting, mix_name
from loadtest.analysis.units import duration
from loadtest.records import Cell, Record

RESAMPLES = 1000
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Price:
    """A line through the mean times per visible token of two or more settings, over their thought
    tokens per visible token.

    The intervals are 95 % percentile bootstraps over repeats and, within them, requests. `fit` is
    the R² of the line.
    """

    base: float
    """Seconds per visible token without a thought, on the line."""
    without_thought: float
    """The same as measured, if there was a budget 0; relative prices are relative to this."""
    slope: float
    slope_interval: Interval
    relative: float
    """A thought token in visible tokens."""
    relative_interval: Interval
    fit: float
    repeats: int
    """The fewest of any setting."""
    points: tuple[Setting, ...]
    """What the line goes through, by their thought tokens."""
    thoughts: tuple[float, ...]
    """Their thought tokens per visible token, or per answer."""
    per_answer: bool = False
    """Of a server that reasons before it answers: `base` is the time of an answer without a
    thought, `without_thought` the mean time of a visible token."""

    def at(self, thoughts: Times) -> Times:
        """The line, in seconds per visible token."""
        return self.base + self.slope * thoughts


@dataclass
class _Point:
    """What was measured with one setting: times per visible token (or of answers), an array for
    each repeat that has any, and the visible tokens (or answers) and thought tokens of these
    requests."""

    repeats: list[Times] = field(default_factory=list)
    units: int = 0
    thought: int = 0

    @property
    def thoughts(self) -> float:
        return self.thought / self.units

    @property
    def mean(self) -> float:
        return float(np.concatenate(self.repeats).mean())


def price_of_a_thought(
    cells: Iterable[Cell], left_out: Collection[Setting] = (), seed: int = 0
) -> Price | None:
    """From cells of one load, repeats included; None where fewer than two settings thought
    differently much, and where the time without a thought cannot be told from 0."""
    return _price(_points(cells), left_out, seed)


def price_of_reasoning(
    cells: Sequence[Cell], left_out: Collection[Setting] = (), seed: int = 0
) -> Price | None:
    """The same of a server that reasons before it answers."""
    times = [
        time
        for cell in cells
        for record in measured(cell.records)
        if record.failure is None and (time := record.time_per_visible_token) is not None
    ]
    return _price(_answers(cells), left_out, seed, float(np.mean(times))) if times else None


def _price(
    points: Mapping[Setting, _Point],
    left_out: Collection[Setting],
    seed: int,
    token: float | None = None,
) -> Price | None:
    """With `token`, the seconds of a visible token, the points are answers."""
    found = sorted(
        (item for item in points.items() if item[0] not in left_out),
        key=lambda item: (item[1].thoughts, item[0].thinking),
    )
    if len({point.thoughts for _, point in found}) < 2:
        return None
    thoughts = np.array([point.thoughts for _, point in found])
    means = np.array([point.mean for _, point in found])
    line = _line(thoughts, means, token)
    drawn = _resampled_lines(thoughts, [point.repeats for _, point in found], seed, token)
    if min(one.zero for one in (line, *drawn)) <= 0:
        return None  # no time without a thought to be relative to
    residual = means - (line.base + line.slope * thoughts)
    return Price(
        base=line.base,
        without_thought=line.zero,
        slope=line.slope,
        slope_interval=_middle([one.slope for one in drawn]),
        relative=line.relative,
        relative_interval=_middle([one.relative for one in drawn]),
        fit=float(1 - residual.var() / means.var()) if np.ptp(means) else 1.0,
        repeats=min(len(point.repeats) for _, point in found),
        points=tuple(setting for setting, _ in found),
        thoughts=tuple(point.thoughts for _, point in found),
        per_answer=token is not None,
    )


def cell_reasons(cell: Cell) -> bool:
    """Whether its server reasons before it answers."""
    return cell.budget_field is not None or any(r.reasoning_times for r in cell.records)


def _answers(cells: Iterable[Cell]) -> dict[Setting, _Point]:
    """Times of answers; those of settings whose thought tokens are not known are left out."""
    points: dict[Setting, _Point] = {}
    for cell in cells:
        good = [record for record in measured(cell.records) if record.failure is None]
        if good and cell_reasons(cell):
            setting = Setting(mix_name(cell), cell.threshold, cell.budget_field)
            point = points.setdefault(setting, _Point())
            point.units += len(good)
            point.thought += sum(record.thought_tokens or 0 for record in good)
            point.repeats.append(np.array([record.end_to_end for record in good]))
    return points


def price_sentence(price: Price) -> str:
    """The price of a thought token with its interval."""
    low, high = price.relative_interval.low, price.relative_interval.high
    unit = "answer" if price.per_answer else "visible token"
    return (
        f"A thought token costs {duration(price.slope)} per {unit}, "
        f"{price.relative:.2f} of a visible token ({low:.2f} to {high:.2f}"
        + (", without what changes from repeat to repeat" if price.repeats < 2 else "")
        + "; line fitted over the settings"
        # Any two points lie on a line.
        + (f", R² = {price.fit:.3f})." if len(set(price.thoughts)) > 2 else ").")
    )


def _points(cells: Iterable[Cell]) -> dict[Setting, _Point]:
    of = LATENCIES["time_per_visible_token"].of
    points: dict[Setting, _Point] = {}
    for cell in cells:
        repeat: dict[Setting, list[float]] = {}
        for record in measured(cell.records):
            if record.failure is None and record.budget is not None and (times := of(record)):
                setting = Setting(budget_name(record.budget), cell.threshold)
                repeat.setdefault(setting, []).extend(times)
                point = points.setdefault(setting, _Point())
                point.units += record.visible_tokens
                point.thought += _thought_tokens(record, record.budget)
        for setting, values in repeat.items():
            points[setting].repeats.append(np.array(values))
    return points


def _thought_tokens(record: Record, budget: int) -> int:
    """As the server counts them; of one that does not, the budget before every token."""
    uncounted = budget * record.visible_tokens
    return uncounted if record.thought_tokens is None else record.thought_tokens


class _Line(NamedTuple):
    """Intercept and slope; and the time that prices are relative to: of a visible token."""

    base: float
    slope: float
    zero: float

    @property
    def relative(self) -> float:
        return self.slope / self.zero


def _line(thoughts: Times, means: Times, token: float | None) -> _Line:
    """Least squares. Without the time of a `token`, prices are relative to that without a thought:
    as measured, if it was."""
    from_middle = thoughts - thoughts.mean()
    slope = float(from_middle @ means / (from_middle @ from_middle))
    base = float(means.mean() - slope * thoughts.mean())
    without = means[thoughts == 0]
    measured_zero = float(without.mean() if without.size else base)
    return _Line(base, slope, measured_zero if token is None else token)


def _resampled_lines(
    thoughts: Times, points: Sequence[Sequence[Times]], seed: int, token: float | None
) -> list[_Line]:
    """The bootstrap: lines through means of repeats and requests drawn again."""
    rng = np.random.default_rng(seed)
    return [
        _line(thoughts, np.array([_resampled_mean(repeats, rng) for repeats in points]), token)
        for _ in range(RESAMPLES)
    ]


def _resampled_mean(repeats: Sequence[Times], rng: np.random.Generator) -> float:
    chosen = [repeats[i] for i in rng.integers(len(repeats), size=len(repeats))]
    drawn = [times[rng.integers(times.size, size=times.size)] for times in chosen]
    return float(np.concatenate(drawn).mean())


def _middle(values: Sequence[float]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))
