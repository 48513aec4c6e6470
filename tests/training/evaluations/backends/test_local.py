"""The model in this process against the reference decoder, position by position."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from quietstar_infer.reference import (
    ChooseThought,
    ReferenceDecoder,
    greedy_thought,
    seeded_thought,
)
from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from tests.support.training.gates import copy_with_gate
from training.errors import UsageError
from training.evaluations.backends import local
from training.evaluations.backends.base import TokenScore
from training.evaluations.backends.local import LocalBackend
from training.evaluations.evaluated_model import load_evaluated_gate, load_for_evaluation
from training.evaluations.sweep import Cell, sweep_cells
from training.evaluations.tasks.passages import Passage
from training.thoughts.decode import ThoughtSettings

BUDGETS = (0, 1, 4)
TOLERANCE = 1e-4
ALLOWED = (5, 8, 9)
# Of different lengths, and with different numbers of scored tokens.
PASSAGES = [
    Passage([1, 9, 8, 5, 30, 9], 1),
    Passage([1, *range(10, 30), 8, 40, 9], 21, ALLOWED),
    Passage([1, *range(10, 36, 2), 5], 14, ALLOWED),
]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return write_random_checkpoint(folder, request.param)


@pytest.fixture(scope="module", params=["entropy", "learned"])
def gated(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Checkpoints without and with a gate."""
    if request.param == "entropy":
        return checkpoint
    return copy_with_gate(checkpoint, tmp_path_factory.mktemp("gated") / "gate", (2, 4))


def backend_of(checkpoint: Path, thoughts: ThoughtSettings) -> LocalBackend:
    loaded = load_for_evaluation(checkpoint, None, "cpu", "float32")
    gate = load_evaluated_gate(checkpoint, loaded.thinker)
    return LocalBackend(*loaded, thoughts, gate)


def expected(
    reference: ReferenceDecoder, passage: Passage, index: int, cell: Cell, choose: ChooseThought
) -> TokenScore:
    """The reference decoder's score of one token."""
    weight, thought, gain = None, None, None
    if cell.budget:
        prediction = reference.predict(passage.ids[:index], cell.budget, choose, cell.threshold)
        logits_V = prediction.logits_V
        weight, thought = prediction.mixing_weight, prediction.thought_ids
        gain = prediction.expected_gain
    else:
        logits_V = reference.predict_plainly(passage.ids[:index])
    token = passage.ids[index]
    among = None
    if token in passage.allowed:
        among = logits_V[list(passage.allowed)].log_softmax(-1)[passage.allowed.index(token)].item()
    logprob = logits_V.log_softmax(-1)[token].item()
    return TokenScore(logprob, int(logits_V.argmax()) == token, among, weight, thought, gain)


def some_gain(reference: ReferenceDecoder) -> float:
    """A threshold that some thoughts are above, and none near."""
    gains = sorted(
        reference.predict(passage.ids[:index], budget).expected_gain
        for passage in PASSAGES
        for index in range(passage.start, len(passage.ids))
        for budget in BUDGETS[1:]
    )
    middle = gains[len(gains) // 4 : -len(gains) // 4]
    _, low, high = max((high - low, low, high) for low, high in pairwise(middle))
    return (low + high) / 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_scored_token_is_the_reference_decoders(
    gated: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where texts are padded together and thoughts are decoded in several runs; before every
    token, and only where thoughts are expected to save enough."""
    monkeypatch.setitem(local.TOKENS_AT_A_TIME, "cpu", 60)
    reference = ReferenceDecoder.from_checkpoint(gated)
    choose = seeded_thought(7, temperature) if temperature else greedy_thought
    thresholds = (0.0, some_gain(reference))
    backend = backend_of(gated, ThoughtSettings(BUDGETS, temperature, 7, thresholds))
    skipped = 0
    for passage, scores in zip(PASSAGES, backend.score(PASSAGES, with_thoughts=True), strict=True):
        assert list(scores) == list(sweep_cells(BUDGETS, thresholds))
        for cell, (by_token, cost) in scores.items():
            assert len(by_token) == passage.num_scored == cost.tokens
            assert cost.thoughts == sum(bool(score.thought_ids) for score in by_token)
            assert cost.thought_tokens == cell.budget * cost.thoughts
            skipped += cost.tokens - cost.thoughts if cell.is_gated else 0
            for index, found in enumerate(by_token, start=passage.start):
                wanted = expected(reference, passage, index, cell, choose)
                assert found.thought_ids == wanted.thought_ids
                assert found.is_likeliest == wanted.is_likeliest
                for mine, theirs in [
                    (found.expected_gain, wanted.expected_gain),
                    (found.logprob, wanted.logprob),
                    (found.among_allowed, wanted.among_allowed),
                    (found.mixing_weight, wanted.mixing_weight),
                ]:
                    assert mine == (theirs and pytest.approx(theirs, abs=TOLERANCE))
    predicted = sum(passage.num_scored for passage in PASSAGES)
    assert 0 < skipped < 2 * predicted, "the threshold decides"


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


def test_thoughts_are_returned_only_on_request(mistral: Path) -> None:
    (scores,) = backend_of(mistral, ThoughtSettings((0, 2))).score(PASSAGES[:1])
    assert {score.thought_ids for score in scores[Cell(2)].scores} == {None}
    assert all(score.mixing_weight is not None for score in scores[Cell(2)].scores)


def test_reset_embeddings_are_the_reference_decoders(mistral: Path) -> None:
    reference = ReferenceDecoder.from_checkpoint(mistral, "reset")
    loaded = load_for_evaluation(mistral, "reset", "cpu", "float32")
    passage = PASSAGES[1]
    (scores,) = LocalBackend(*loaded, ThoughtSettings((3,), 0.0)).score([passage])
    for index, found in enumerate(scores[Cell(3)].scores, start=passage.start):
        wanted = expected(reference, passage, index, Cell(3), greedy_thought)
        assert found.logprob == pytest.approx(wanted.logprob, abs=TOLERANCE)


def test_a_text_without_room_is_refused(mistral: Path) -> None:
    passage = Passage([5] * 1021, 1000)
    with pytest.raises(UsageError, match="1021 tokens with thoughts of 4 needs 1026 positions"):
        backend_of(mistral, ThoughtSettings((0, 4))).score([passage])


def test_bfloat16_is_close(mistral: Path) -> None:
    loaded = load_for_evaluation(mistral, None, "cpu", "bfloat16")
    (rough,) = LocalBackend(*loaded, ThoughtSettings((0,))).score(PASSAGES[1:2])
    (exact,) = backend_of(mistral, ThoughtSettings((0,))).score(PASSAGES[1:2])
    for mine, theirs in zip(rough[Cell(0)].scores, exact[Cell(0)].scores, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=0.5)
        assert math.isfinite(mine.logprob)
