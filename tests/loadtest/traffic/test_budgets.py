"""Thought budgets on the command line."""

import math
import random
from collections import Counter

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.budgets import NO_BUDGET, BudgetMix, parse_budgets


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
        ("4,0,4", "4 is there twice"),
        ("0:0,4:1", "no share"),
        ("0:x", "no share"),
        ("0:inf", "no share"),
    ],
)
def test_an_invalid_budget_is_explained(text: str, words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        parse_budgets(text)


def test_a_mix_of_one_is_that_budget() -> None:
    assert parse_budgets("4:1") == (BudgetMix(((4, 1.0),)),)
    assert str(parse_budgets("4:1")[0]) == "4"
