"""Shares, passes, and the choice of thresholds, by hand."""

from dataclasses import astuple

import pytest
import torch

from training.errors import UsageError
from training.gate.tradeoff import (
    Measured,
    calibration,
    threshold_keeping,
    tradeoff,
)

GAIN = torch.tensor([0.0, 4.0, 1.0, 5.0])
SCORE = torch.tensor([0.01, 3.0, 0.456, 2.0])
MEASURED = Measured(12, GAIN, torch.full((4,), 2.0), torch.tensor([2.0, 1.0, 1.5, 0.0]))


def with_gains(gain_N: torch.Tensor) -> Measured:
    zeros_N = torch.zeros_like(gain_N)
    return Measured(12, gain_N, zeros_N, zeros_N)


def test_the_threshold_lies_in_the_widest_gap_that_costs_next_to_nothing_more() -> None:
    """500 thoughts keep 95 %; 10 more are had for less than 1 % of the passes, 490 are not."""
    score_N = torch.cat(
        [torch.full((n,), value) for n, value in ((500, 1.0), (10, 0.4), (490, 0.1), (9000, 0.0))]
    )
    gain_N = score_N * (score_N > 0.4)
    assert threshold_keeping(score_N, with_gains(gain_N), 0.95) == 0.19
    assert tradeoff(score_N, with_gains(gain_N), 0.19).thinks == 0.051
    closer_N = torch.where(score_N == 0.1, 0.3, score_N)
    assert threshold_keeping(closer_N, with_gains(gain_N), 0.95) == 0.63
    assert tradeoff(closer_N, with_gains(gain_N), 0.63).thinks == 0.05


def test_a_threshold() -> None:
    found = tradeoff(SCORE, MEASURED, 0.5)
    assert found.thinks == 0.5
    assert found.keeps == pytest.approx(0.9)
    assert found.passes == 1 + 0.5 * 13
    assert found.loses == pytest.approx(0.5 / 4)


def test_threshold_0_always_thinks_and_shares_a_pass_with_start() -> None:
    found = tradeoff(torch.zeros(4), MEASURED, 0.0)
    assert (found.thinks, found.keeps, found.passes, found.loses) == (1, 1, 13, 0)


def test_a_score_at_the_threshold_is_not_thought_about() -> None:
    assert tradeoff(SCORE, MEASURED, 2.0).thinks == 0.25


@pytest.mark.parametrize(
    ("share", "expected"), [(0.4, 2.4), (0.41, 0.95), (0.9, 0.95), (0.95, 0.067), (1.0, 0.067)]
)
def test_the_threshold_of_the_fewest_passes_that_keep_a_share(
    share: float, expected: float
) -> None:
    found = threshold_keeping(SCORE, MEASURED, share)
    assert found == expected
    assert tradeoff(SCORE, MEASURED, found).keeps >= share


@pytest.mark.parametrize("score", [0.1, 0.0999999, 1.0, 123.0, 0.00031, 7e-12])
def test_thresholds_are_below_the_scores_that_they_keep(score: float) -> None:
    threshold = threshold_keeping(torch.full((3,), score), with_gains(torch.ones(3)), 0.95)
    assert torch.tensor(0.85 * score) < torch.tensor(threshold) < torch.tensor(score)
    assert threshold == float(f"{threshold:.2g}")


def test_without_any_gain_there_is_nothing_to_choose() -> None:
    with pytest.raises(UsageError, match="thoughts change no prediction of this model"):
        threshold_keeping(SCORE, with_gains(torch.zeros(4)), 0.95)


def test_calibration_by_ranges_of_the_expected_gain() -> None:
    bins = calibration(torch.tensor([0.0004, 0.0006, 0.3]), torch.tensor([0.0, 0.002, 0.5]))
    assert [astuple(each) for each in bins] == [
        (2, pytest.approx(0.0005), pytest.approx(0.001)),
        (1, pytest.approx(0.3), 0.5),
    ]
