"""Distributions of lengths."""

import math
import random
import statistics

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.lengths import parse_lengths


@pytest.mark.parametrize(
    ("text", "mean", "spread"),
    [
        ("128", 128, 0),
        ("uniform:10-30", 20, math.sqrt((21**2 - 1) / 12)),
        ("normal:100,sd=10", 100, 10),
        (
            "lognormal:100,sigma=0.5",
            100 * math.exp(0.125),
            100 * math.exp(0.125) * math.sqrt(math.exp(0.25) - 1),
        ),
    ],
)
def test_lengths_have_their_distribution(text: str, mean: float, spread: float) -> None:
    lengths = parse_lengths(text)
    rng = random.Random(0)
    drawn = [lengths.draw(rng) for _ in range(10_000)]
    assert statistics.mean(drawn) == pytest.approx(mean, abs=3.3 * spread / 100)
    assert statistics.pstdev(drawn) == pytest.approx(spread, rel=0.05)
    assert min(drawn) >= 1
    assert str(lengths) == text


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "1.5", "uniform:30-10", "uniform:0-5", "normal:100", "normal:0,sd=1", "zipf:2"],
)
def test_an_invalid_length_is_explained(text: str) -> None:
    with pytest.raises(LoadTestError, match="is none of"):
        parse_lengths(text)
