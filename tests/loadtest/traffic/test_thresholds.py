"""Thought thresholds on the command line."""

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.budgets import parse_budgets
from loadtest.traffic.thresholds import crossed, parse_thresholds


def test_thresholds_are_numbers_of_nats() -> None:
    assert parse_thresholds("0, 0.02,1e-1,0.5") == (0, 0.02, 0.1, 0.5)
    assert parse_thresholds(None) == (None,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no number of nats from 0 up"),
        ("0,much", "'much' is no number"),
        ("-0.1", "'-0.1' is no number"),
        ("0,nan", "'nan' is no number"),
        ("inf", "'inf' is no number"),
        ("0.1:0.5,0.2:0.5", "'0.1:0.5' is no number"),
        ("0,0.1,0.10", "0.10 is there twice"),
        ("0,-0", "-0 is there twice"),
    ],
)
def test_an_invalid_threshold_is_explained(text: str, words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        parse_thresholds(text)


def test_every_budget_that_thinks_is_measured_with_every_threshold() -> None:
    mixes = crossed(parse_budgets("0,4,none"), (0.0, 0.1))
    assert [mix.name for mix in mixes] == [
        *("0", "4, threshold 0", "4, threshold 0.1", "none, threshold 0", "none, threshold 0.1")
    ]
    mixes = crossed(parse_budgets("0:1,4:1"), (0.0, 0.1))
    assert [mix.name for mix in mixes] == ["0:0.5,4:0.5, threshold 0", "0:0.5,4:0.5, threshold 0.1"]


def test_without_thresholds_budgets_are_as_they_were() -> None:
    assert crossed(parse_budgets("0,4"), parse_thresholds(None)) == parse_budgets("0,4")
