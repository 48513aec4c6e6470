"""Means with their intervals."""

import numpy as np
import pytest

from training.evaluations.estimates import mean, share


def test_a_share_has_wilsons_interval() -> None:
    # Newcombe (1998), table I: 81 of 263, 0 of 20.
    many, none = share([True] * 81 + [False] * 182), share([False] * 20)
    assert [many.low, many.high] == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert [none.low, none.high] == pytest.approx([0.0, 0.1611], abs=1e-4)


def test_the_bootstrap_interval_covers_the_mean() -> None:
    """In about 95 of 100 samples of tokens in documents the true mean lies within."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        tokens = rng.integers(5, 60, size=60)
        sums = [float(rng.exponential(2.0, size=n).sum()) for n in tokens]
        estimate = mean(sums, tokens.tolist())
        hits += estimate.low <= 2.0 <= estimate.high
    assert 180 <= hits <= 200


def test_a_bootstrap_is_the_same_every_time() -> None:
    assert mean([1.0, 2.0, 5.0]) == mean([1.0, 2.0, 5.0])
    assert mean([2.0, 2.0]).low == mean([2.0, 2.0]).high == 2.0
