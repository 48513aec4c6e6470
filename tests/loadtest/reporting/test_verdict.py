"""The first sentence: of records whose price and accuracy are known."""

from collections.abc import Mapping

import pytest

from loadtest.analysis.summary import LoadSummary, summarise
from loadtest.records import Cell
from loadtest.reporting.report import render
from loadtest.reporting.verdict import verdict
from tests.support.loadtest.records import made_cell, made_record, made_run

PASS = 0.01  # seconds


def cells_of(right: Mapping[int, int | None]) -> list[Cell]:
    """By budget: how many of its 50 answers are right, None where that is not known. Every pass
    takes as long."""
    return [
        made_cell(
            [
                made_record(
                    index,
                    index * 0.1,
                    budget,
                    per_token=PASS * (budget + 1),
                    correct=None if number is None else index < number,
                )
                for index in range(50)
            ],
            (0.0, 20.0),
            {str(budget): 1.0},
            "closed:4",
        )
        for budget, number in right.items()
    ]


def load_of(right: Mapping[int, int | None]) -> LoadSummary:
    (load,) = summarise(made_run(cells_of(right))).loads
    return load


COSTS = "A thought token costs 10 ms per visible token, as much as 1.00 of a visible token; "


@pytest.mark.parametrize(
    ("right", "words"),
    [
        (
            {0: 10, 4: 30, 8: 45},
            "thinking takes right answers from 20.0% (b = 0) to 90.0% (b = 8); take b = 8: 90.0% "
            "right for 9 passes per visible token, the cheapest within 1 point of the best.",
        ),
        (
            {0: 10, 4: 45, 8: 45},
            "thinking takes right answers from 20.0% (b = 0) to 90.0% (b = 4); take b = 4: 90.0% "
            "right for 5 passes per visible token, the cheapest within 1 point of the best.",
        ),
        (
            {0: 25, 8: 27},
            "thinking buys no more right answers than chance would: 54.0% at most, 50.0% with "
            "b = 0; take b = 0 until more requests show otherwise.",
        ),
        ({0: None, 8: None}, "what it buys was not measured (--answers)."),
    ],
)
def test_what_a_thought_token_costs_what_it_buys_and_which_budget_to_take(
    right: dict[int, int | None], words: str
) -> None:
    assert verdict(load_of(right)) == COSTS + words


def test_where_nothing_is_compared_nothing_is_said() -> None:
    assert verdict(load_of({4: 10})) is None


def test_it_is_the_first_sentence_of_a_report() -> None:
    summary = summarise(made_run(cells_of({0: 10, 8: 45})))
    (load,) = summary.loads
    sentence = verdict(load)
    assert sentence
    html = render(summary)
    first = html.index(sentence)
    assert first < html.index("<table")
    assert first < html.index("<svg")
