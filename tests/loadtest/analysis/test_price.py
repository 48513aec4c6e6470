"""What a thought token costs and buys."""

import math

import pytest

from loadtest.analysis.intervals import Share
from loadtest.analysis.price import front, price_of_a_thought
from tests.support.loadtest.records import PASS_SECONDS, made_cell, made_record, sweep


def test_the_price_is_the_slope_and_its_interval_contains_the_true_one() -> None:
    price = price_of_a_thought(sweep(loads=("closed:4",)))
    assert price is not None
    true = PASS_SECONDS * 1.25 * math.exp(0.15**2 / 2)
    assert price.slope_interval.low < true < price.slope_interval.high
    assert price.slope == pytest.approx(true, rel=0.05)
    assert price.relative_interval.low < 1 < price.relative_interval.high
    assert price.fit > 0.99
    assert price_of_a_thought(sweep(budgets=(4,))) is None


def test_without_budget_0_the_price_is_relative_to_the_fitted_line() -> None:
    cells = [
        made_cell(
            [made_record(n, n, budget, per_token=0.02 + 0.01 * budget) for n in range(5)],
            (0.0, 5.0),
            {str(budget): 1.0},
        )
        for budget in (2, 4, 8)
    ]
    price = price_of_a_thought(cells)
    assert price is not None
    assert price.base == pytest.approx(0.02)
    assert price.relative == pytest.approx(0.5)


def test_the_front_leaves_out_dominated_budgets() -> None:
    bought = front(
        {
            "0": (0.01, Share(2, 10)),
            "2": (0.03, Share(1, 10)),
            "4": (0.05, Share(5, 10)),
            "8": (0.09, Share(5, 10)),
        }
    )
    assert [(b.budget, b.on_front) for b in bought] == [
        *(("0", True), ("2", False), ("4", True), ("8", False))
    ]
