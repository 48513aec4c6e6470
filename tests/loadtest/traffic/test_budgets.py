"""Thought budgets and lengths on the command line."""

import math
import random
import statistics
from collections import Counter

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.budgets import NO_BUDGET, BudgetMix, parse_budgets
from loadtest.traffic.lengths import parse_lengths


def test_budgets_without_shares_are_cells_of_their_own() -> None:
    assert [str(mix) for mix in parse_budgets("0, 2,16")] == ["0", "2", "16"]
    assert parse_budgets("none") == (NO_BUDGET,)


def test_budgets_with_shares_are_one_mix() -> None:
    (mix,) = parse_budgets("0:0.5,4:0.3,16:0.2")
    assert mix.by_name == pytest.approx({"0": 0.5, "4": 0.3, "16": 0.2})
    assert str(mix) == "0:0.5,4:0.3,16:0.2"
    (relative,) = parse_budgets("0:5,4:3,16:2")
    assert relative.by_name == pytest.approx(mix.by_name)


def test_a_mix_is_drawn_in_its_shares() -> None:
    (mix,) = parse_budgets("0:0.5,4:0.3,16:0.2")
    rng = random.Random(0)
    drawn = Counter(mix.draw(rng) for _ in range(10_000))
    for budget, share in mix.shares:
        assert abs(drawn[budget] - 10_000 * share) < 3.3 * math.sqrt(10_000 * share * (1 - share))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no whole number"),
        ("0,2.5", "no whole number"),
        ("-1", "no whole number"),
        ("0:0.5,4", "either all have a share"),
        ("0:0.5,0:0.5", "twice"),
        ("0:0,4:1", "no share"),
        ("0:x", "no share"),
        ("0:inf", "no share"),
    ],
)
def test_what_is_no_budget_is_explained(text: str, words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        parse_budgets(text)


def test_a_mix_of_one_is_that_budget() -> None:
    assert parse_budgets("4:1") == (BudgetMix(((4, 1.0),)),)
    assert str(parse_budgets("4:1")[0]) == "4"


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
def test_what_is_no_length_is_explained(text: str) -> None:
    with pytest.raises(LoadTestError, match="is none of"):
        parse_lengths(text)
