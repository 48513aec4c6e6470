"""What a thought token costs, and what it buys.

The time per visible token grows with the budget b about as t(b) = t₀ + c·b: with a thought of b
tokens a visible token takes b + 1 passes of the model instead of one. The slope c is the price of a
thought token in seconds, c / t(0) its price in visible tokens, with t(0) as measured if there was a
budget 0, else as fitted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.figures import measured
from loadtest.analysis.intervals import Interval, Share
from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.units import duration
from loadtest.records import Cell

RESAMPLES = 1000
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Price:
    """A line through the mean times per visible token of two or more budgets.

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
    """The fewest of any budget."""

    def at(self, budgets: Times) -> Times:
        """The line, in seconds per visible token."""
        return self.base + self.slope * budgets


@dataclass(frozen=True)
class Bought:
    """A budget's accuracy beside its price."""

    budget: str
    seconds: float
    """Mean time per visible token."""
    accuracy: Share
    on_front: bool
    """No other budget is as fast and as accurate, and better in one of the two (Pareto)."""


def price_of_a_thought(cells: Iterable[Cell], seed: int = 0) -> Price | None:
    """From cells of one load, repeats included; None with fewer than two budgets, and where the
    time without a thought cannot be told from 0."""
    repeats = _times_by_budget(cells)
    if len(repeats) < 2:
        return None
    rng = np.random.default_rng(seed)
    budgets = np.array(sorted(repeats), float)
    means = np.array([np.concatenate(repeats[int(budget)]).mean() for budget in budgets])
    base, slope, zero = _line(budgets, means)
    drawn = [
        _line(budgets, np.array([_resampled_mean(repeats[int(b)], rng) for b in budgets]))
        for _ in range(RESAMPLES)
    ]
    if min(zero, *(zero for _, _, zero in drawn)) <= 0:
        return None  # no time without a thought to be relative to
    residual = means - (base + slope * budgets)
    return Price(
        base=base,
        without_thought=zero,
        slope=slope,
        slope_interval=_middle([slope for _, slope, _ in drawn]),
        relative=slope / zero,
        relative_interval=_middle([slope / zero for _, slope, zero in drawn]),
        fit=float(1 - residual.var() / means.var()) if np.ptp(means) else 1.0,
        repeats=min(map(len, repeats.values())),
    )


def price_sentence(price: Price) -> str:
    """The price of a thought token with its interval."""
    low, high = price.relative_interval.low, price.relative_interval.high
    return (
        f"A thought token costs {duration(price.slope)} per visible token, "
        f"{price.relative:.2f} of a visible token ({low:.2f} to {high:.2f}"
        + (", without what changes from repeat to repeat" if price.repeats < 2 else "")
        + f"; line fitted over the budgets, R² = {price.fit:.3f})."
    )


def _times_by_budget(cells: Iterable[Cell]) -> dict[int, list[Times]]:
    """Times per visible token by budget, an array for each repeat that has any."""
    of = LATENCIES["time_per_visible_token"].of
    repeats: dict[int, list[Times]] = {}
    for cell in cells:
        times: dict[int, list[float]] = {}
        for record in measured(cell.records):
            if record.failure is None and record.budget is not None:
                times.setdefault(record.budget, []).extend(of(record))
        for budget, values in times.items():
            if values:
                repeats.setdefault(budget, []).append(np.array(values))
    return repeats


def _line(budgets: Times, means: Times) -> tuple[float, float, float]:
    """Least squares: intercept and slope; and the time without a thought, as measured if it was."""
    from_middle = budgets - budgets.mean()
    slope = float(from_middle @ means / (from_middle @ from_middle))
    base = float(means.mean() - slope * budgets.mean())
    return base, slope, float(means[0] if budgets[0] == 0 else base)


def _resampled_mean(repeats: Sequence[Times], rng: np.random.Generator) -> float:
    chosen = [repeats[i] for i in rng.integers(len(repeats), size=len(repeats))]
    drawn = [times[rng.integers(times.size, size=times.size)] for times in chosen]
    return float(np.concatenate(drawn).mean())


def _middle(values: Sequence[float]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def front(points: Mapping[str, tuple[float, Share]]) -> list[Bought]:
    """Budgets from the fastest to the slowest; those on the Pareto front are marked."""
    ordered = sorted(points, key=lambda budget: (points[budget][0], -points[budget][1].value))
    best = -1.0
    bought = []
    for budget in ordered:
        seconds, accuracy = points[budget]
        bought.append(Bought(budget, seconds, accuracy, on_front=accuracy.value > best))
        best = max(best, accuracy.value)
    return bought
