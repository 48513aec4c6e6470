"""From token scores to outcomes, estimates and a record that survives."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.errors import UsageError
from training.evaluations.backends.base import TokenScore
from training.evaluations.estimates import mean, share
from training.evaluations.outcomes import (
    answer_outcome,
    choice_outcome,
    first_number,
    last_number,
    text_outcome,
    vote_outcome,
)
from training.evaluations.record import ITEMS, Place, Record
from training.evaluations.summary import corpus_likelihood, difficulty, estimates

RUN = {"model": "m", "seed": 1, "command": "first"}


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


def test_documents_keep_what_is_known() -> None:
    plain = text_outcome([TokenScore(-1.5, True), TokenScore(1e-7, True)])
    assert plain == {"nll": [1.5, 0.0]}
    thoughtful = text_outcome([TokenScore(-1.0, True, None, 0.25, [4, 5])])
    assert thoughtful == {"nll": [1.0], "weights": [0.25], "thoughts": [[4, 5]]}


def test_numbers_in_answers() -> None:
    assert first_number(" $1,200 or 7") == 1200
    assert last_number("6 - 2 = 4. So 1,004 apples.") == 1004
    assert first_number("none") is last_number("none") is None


def test_the_majority_of_votes() -> None:
    outcome = vote_outcome([3, 4, 4, None], 4, ["a", "b", "c", "d"])
    assert outcome["right"] is True
    assert outcome["votes_right"] == 0.5
    assert vote_outcome([None, None, 4], 4, ["", "", ""])["right"] is False
    # Among equals the first, as in the official script.
    assert vote_outcome([3, 4], 4, ["", ""])["right"] is False


def test_a_share_has_wilsons_interval() -> None:
    # Newcombe (1998), table I: 81 of 263, 0 of 20.
    many, none = share([True] * 81 + [False] * 182), share([False] * 20)
    assert [many.low, many.high] == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert [none.low, none.high] == pytest.approx([0.0, 0.1611], abs=1e-4)


def test_the_bootstrap_covers_what_it_says() -> None:
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


def document(base: list[float], own: list[float]) -> dict[str, Any]:
    return {
        "outcomes": {"0": {"nll": base}, "4": {"nll": own}},
        "bytes": 10 * len(base),
        "words": len(base),
    }


def test_perplexity_and_gain_of_documents() -> None:
    items = [document([0.05, 2.0], [0.05, 1.0]), document([4.0], [3.5])]
    found = estimates("text", items, 4)
    assert found["nll"].value == pytest.approx(4.55 / 3)
    assert found["perplexity"].value == pytest.approx(math.exp(4.55 / 3))
    assert found["gain"].value == pytest.approx(0.5)
    assert corpus_likelihood(items, 4)["word_perplexity"] == pytest.approx(math.exp(4.55 / 3))
    assert corpus_likelihood(items, 0)["bits_per_byte"] == pytest.approx(6.05 / 30 / math.log(2))
    easy, hard, hardest = difficulty(items, 4)
    assert (easy["from"], easy["below"], easy["tokens"]) == (0.0, 0.1, 1)
    assert (hard["from"], hard["gain"]["value"]) == (1.0, 1.0)
    assert (hardest["below"], hardest["gain"]["value"]) == (None, 0.5)


def test_a_record_goes_on_behind_its_last_whole_line(tmp_path: Path) -> None:
    record = Record(tmp_path / "out", RUN, resume=False)
    for number in (1, 0):
        record.add(Place("thinker", "t", number), {"outcomes": {"0": number}})
    record.close()
    with (tmp_path / "out" / ITEMS).open("a") as lines:
        lines.write('{"who": "thinker", "task": "t", "nu')  # cut short
    again = Record(tmp_path / "out", {**RUN, "command": "second"}, resume=True)
    assert Place("thinker", "t", 1) in again
    assert Place("thinker", "t", 2) not in again
    again.add(Place("thinker", "t", 2), {"outcomes": {"0": 2}})
    again.close()
    assert [item["outcomes"]["0"] for item in again.of("thinker", "t")] == [0, 1, 2]
    lines_now = (tmp_path / "out" / ITEMS).read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines_now] == [1, 0, 2]


def test_another_evaluation_is_not_gone_on_with(tmp_path: Path) -> None:
    Record(tmp_path / "out", RUN, resume=False).close()
    with pytest.raises(UsageError, match="another seed: 1, not 2"):
        Record(tmp_path / "out", RUN | {"seed": 2}, resume=True)
    with pytest.raises(UsageError, match="add --resume"):
        Record(tmp_path / "out", RUN, resume=False)
