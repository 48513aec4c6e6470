"""Confidence intervals of figures, all at 95 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, stdev

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
Z_ONE_SIDED = NormalDist().inv_cdf(CONFIDENCE)

# Quantiles of Student's t at 0.975 for 1, 2, ... degrees of freedom.
STUDENT_T = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
)


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """`hits` of `count`, with its Wilson interval."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> Interval:
        return wilson(self.hits, self.count)


@dataclass(frozen=True)
class Repeated:
    """One figure of several repeats: the mean, and its t interval if there are two or more."""

    values: tuple[float, ...]
    missing: int = 0
    """Repeats that do not have it: nothing succeeded, or too little for a percentile."""

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def half_width(self) -> float | None:
        """Of the t interval of the mean; None for a single value."""
        if len(self.values) < 2:
            return None
        return student_t(len(self.values) - 1) * stdev(self.values) / math.sqrt(len(self.values))


def wilson(hits: float, count: float, z: float = Z) -> Interval:
    """The score interval of a share (Wilson, 1927), valid for few hits and small samples, too."""
    share = hits / count
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def student_t(freedom: float) -> float:
    """The quantile at 0.975, for degrees of freedom rounded down: the wider interval."""
    return STUDENT_T[min(max(int(freedom), 1), len(STUDENT_T)) - 1]


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The mean of `second` less that of `first` (Welch's t), from two or more values of each."""
    variances = [stdev(values) ** 2 / len(values) for values in (first, second)]
    total = sum(variances)
    middle = mean(second) - mean(first)
    if total == 0:
        return Interval(middle, middle)
    freedom = total**2 / sum(
        variance**2 / (len(values) - 1)
        for variance, values in zip(variances, (first, second), strict=True)
    )
    half = student_t(freedom) * math.sqrt(total)
    return Interval(middle - half, middle + half)
