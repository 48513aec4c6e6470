"""Percentiles, and which of them a sample supports.

A percentile is the nearest rank (numpy's `inverted_cdf`): the smallest measured value that is not
exceeded in p % of all cases. It is a measured value, not an interpolated one.

A sample of n values supports the percentile p if its greatest value lies beyond the true one with
95 % confidence: 1 − p^n ≥ 0.95. That takes 5 values for the median, 59 for p95, 299 for p99 and
2995 for p99.9. With fewer, the percentile is not shown.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from loadtest.analysis.intervals import CONFIDENCE

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def values_needed(share: float) -> int:
    """The number of values that supports the percentile."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(share))


@dataclass(frozen=True)
class Distribution:
    """One latency of all requests that have it, in seconds, with the supported percentiles."""

    count: int
    mean: float
    least: float
    greatest: float
    percentiles: dict[str, float]


def distribution(values: Iterable[float]) -> Distribution | None:
    """None without any value."""
    array = np.fromiter(values, float)
    if not array.size:
        return None
    supported = {
        name: share for name, share in PERCENTILES.items() if array.size >= values_needed(share)
    }
    ranks = np.quantile(array, list(supported.values()), method="inverted_cdf")
    return Distribution(
        count=array.size,
        mean=float(array.mean()),
        least=float(array.min()),
        greatest=float(array.max()),
        percentiles=dict(zip(supported, ranks.tolist(), strict=True)),
    )
