"""What a thought token costs and buys."""

import math

import pytest

from loadtest.analysis.price import price_of_a_thought, price_sentence
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


def test_the_price_is_that_of_what_was_really_thought() -> None:
    """Behind a gate a budget of 8 may be a quarter of a thought token per visible token."""
    cells = []
    for threshold, tokens in ((None, 0), (0.5, 2), (0.1, 16)):
        per_token = 0.02 + 0.01 * tokens / 8
        records = [
            made_record(n, n, 8, per_token=per_token, tokens=8, threshold=threshold).model_copy(
                update={"thought_tokens": tokens}
            )
            for n in range(5)
        ]
        cell = made_cell(records, (0.0, 5.0), {"8": 1.0}, threshold=threshold)
        cells.append(cell)
    price = price_of_a_thought(cells)
    assert price is not None
    assert price.thoughts == (0, 0.25, 2)
    assert price.base == pytest.approx(0.02)
    assert price.relative == pytest.approx(0.5)
    same = [cell.model_copy(update={"threshold": n}) for n, cell in enumerate(cells[:1] * 2)]
    assert price_of_a_thought(same) is None


def test_the_fit_of_two_points_is_not_printed() -> None:
    two, three = (
        price_of_a_thought(sweep(budgets=budgets, loads=("closed:4",)))
        for budgets in ((0, 4), (0, 4, 8))
    )
    assert two is not None
    assert three is not None
    assert "R²" not in price_sentence(two)
    assert "line fitted over the settings)." in price_sentence(two)
    assert f"R² = {three.fit:.3f}" in price_sentence(three)
