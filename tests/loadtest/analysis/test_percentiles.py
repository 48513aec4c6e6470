"""Percentiles, against numpy."""

import numpy as np
import pytest

from loadtest.analysis.percentiles import PERCENTILES, distribution, values_needed


def test_percentiles_are_measured_values_at_the_nearest_rank() -> None:
    found = distribution(range(1, 10_001))
    assert found is not None
    ranks = {"p50": 5000, "p90": 9000, "p95": 9500, "p99": 9900, "p99.9": 9990}
    assert found.percentiles == ranks
    assert (found.mean, found.least, found.greatest, found.count) == (5000.5, 1, 10_000, 10_000)


def test_percentiles_agree_with_numpys_on_any_sample() -> None:
    values = np.random.default_rng(0).lognormal(size=4001)
    found = distribution(values)
    assert found is not None
    for name, share in PERCENTILES.items():
        below = np.quantile(values, share, method="lower")
        above = np.quantile(values, share, method="higher")
        assert found.percentiles[name] in (below, above)


def test_a_percentile_is_given_only_where_the_sample_supports_it() -> None:
    needed = {name: values_needed(share) for name, share in PERCENTILES.items()}
    assert needed == {"p50": 5, "p90": 29, "p95": 59, "p99": 299, "p99.9": 2995}
    for name, number in needed.items():
        enough, short = distribution(range(number)), distribution(range(number - 1))
        assert enough is not None
        assert name in enough.percentiles
        assert short is None or name not in short.percentiles
    assert distribution([]) is None


def test_a_supported_percentile_is_seldom_beyond_the_greatest_value() -> None:
    samples = np.random.default_rng(0).random((20_000, values_needed(0.95)))
    assert (samples.max(axis=1) > 0.95).mean() == pytest.approx(0.95, abs=0.01)
