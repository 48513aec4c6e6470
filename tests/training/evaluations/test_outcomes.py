"""From token scores to outcomes."""

import math

import pytest

from training.evaluations.backends.base import ScoredPassage, TokenScore
from training.evaluations.cost import Cost
from training.evaluations.outcomes import (
    answer_outcome,
    choice_outcome,
    first_number,
    item_outcomes,
    last_number,
    text_outcome,
    vote_outcome,
)
from training.evaluations.sweep import Cell
from training.evaluations.tasks.passages import Item, Passage


def test_the_official_accuracy_is_a_product_over_what_is_allowed() -> None:
    scores = [
        TokenScore(-3.0, True, math.log(0.5)),
        TokenScore(-1.0, True),  # a comma
        TokenScore(-2.0, False, math.log(0.25)),
    ]
    outcome = answer_outcome(scores)
    assert outcome == {"accuracy": pytest.approx(0.125), "exact": False, "logprob": -6.0}
    assert answer_outcome(scores[:2])["exact"] is True
    # A tokenizer that writes none of the allowed tokens has not answered.
    assert answer_outcome([TokenScore(-1.0, True)])["accuracy"] == 0


def test_the_likeliest_choice_counts() -> None:
    choices = [[TokenScore(-1.0, True), TokenScore(-3.0, True)], [TokenScore(-3.5, False)]]
    assert choice_outcome(choices, 1) == {"logprobs": [-4.0, -3.5], "right": True}
    assert choice_outcome(choices, 0)["right"] is False


def test_documents_have_weights_and_thoughts_where_they_are_known() -> None:
    plain = text_outcome([TokenScore(-1.5, True), TokenScore(1e-7, True)])
    assert plain == {"nll": [1.5, 0.0]}
    thoughtful = text_outcome([TokenScore(-1.0, True, None, 0.25, [4, 5])])
    assert thoughtful == {"nll": [1.0], "weights": [0.25], "thoughts": [[4, 5]]}
    gated = text_outcome(
        [TokenScore(-1.0, True, None, 0.25, [4], 0.3), TokenScore(-2.0, True, None, None, [], 0.1)]
    )
    assert gated == {
        "nll": [1.0, 2.0],
        "weights": [0.25, None],
        "thoughts": [[4], []],
        "expected_gains": [0.3, 0.1],
    }


def test_an_item_costs_what_all_its_passages_cost() -> None:
    cell = Cell(2, 0.1)
    scores = [
        {cell: ScoredPassage([TokenScore(logprob, True)], Cost(1, thoughts, 2 * thoughts))}
        for logprob, thoughts in ((-1.0, 1), (-2.0, 0))
    ]
    outcomes = item_outcomes("choice", Item([Passage([1, 2], 1)] * 2, gold=0), scores)
    assert list(outcomes) == ["2@0.1"]
    assert outcomes["2@0.1"]["right"] is True
    assert outcomes["2@0.1"]["cost"] == {"tokens": 2, "thoughts": 1, "thought_tokens": 2}


def test_numbers_in_answers() -> None:
    assert first_number(" $1,200 or 7") == 1200
    assert last_number("6 - 2 = 4. So 1,004 apples.") == 1004
    assert first_number("none") is last_number("none") is None
    words = ("one", "two", "eleven")
    chain = "---two eleven one--- eleven plums, none of 7."
    assert (first_number(chain, words), last_number(chain, words)) == ("two", "eleven")
    assert first_number("none", words) is None


def test_the_majority_of_votes() -> None:
    outcome = vote_outcome([3, 4, 4, None], 4, ["a", "b", "c", "d"])
    assert outcome["right"] is True
    assert outcome["votes_right"] == 0.5
    assert vote_outcome([None, None, 4], 4, ["", "", ""])["right"] is False
    # Among equals the first, as in the official script.
    assert vote_outcome([3, 4], 4, ["", ""])["right"] is False
