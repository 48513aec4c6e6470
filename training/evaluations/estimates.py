"""Means over items, with 95 % intervals.

Shares of right answers have Wilson's interval, which holds for few items and near 0 and 1; other
means, also of tokens, whose documents differ in length, have a percentile interval of the bootstrap
over items.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over `items`, and the ends of its interval."""

    value: float
    low: float
    high: float
    items: int

    def through(self, rising: Callable[[float], float]) -> "Estimate":
        """The estimate of a rising function of it."""
        return Estimate(rising(self.value), rising(self.low), rising(self.high), self.items)


def share(hits: Sequence[bool]) -> Estimate:
    """The share of items that are right, with its score interval (Wilson, 1927)."""
    count, value = len(hits), sum(hits) / len(hits)
    scale = 1 + _Z * _Z / count
    middle = (value + _Z * _Z / (2 * count)) / scale
    half = _Z / scale * math.sqrt(value * (1 - value) / count + _Z * _Z / (4 * count * count))
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half), count)


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> Estimate:
    """Σ value / Σ weight over items, weights 1 unless they are given; the same every time."""
    value_N = np.asarray(values, dtype=np.float64)
    weight_N = np.ones_like(value_N) if weights is None else np.asarray(weights, dtype=np.float64)
    rng = np.random.default_rng(0)
    drawn_RN = rng.integers(len(value_N), size=(_RESAMPLES, len(value_N)))
    total_R = weight_N[drawn_RN].sum(axis=1)
    # A resample without a token is left out.
    means_R = value_N[drawn_RN].sum(axis=1)[total_R > 0] / total_R[total_R > 0]
    low, high = np.quantile(means_R, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(
        float(value_N.sum() / weight_N.sum()), float(low), float(high), int((weight_N > 0).sum())
    )
