"""The model in this process against the reference decoder, position by position."""

import math
from pathlib import Path

import pytest

from quietstar_infer.reference import (
    ChooseThought,
    ReferenceDecoder,
    greedy_thought,
    seeded_thought,
)
from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from training.errors import UsageError
from training.evaluations.backends import local
from training.evaluations.backends.base import TokenScore
from training.evaluations.backends.local import LocalBackend
from training.evaluations.evaluated_model import load_for_evaluation
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


def backend_of(checkpoint: Path, thoughts: ThoughtSettings) -> LocalBackend:
    loaded = load_for_evaluation(checkpoint, None, "cpu", "float32")
    return LocalBackend(*loaded, thoughts)


def expected(
    reference: ReferenceDecoder, passage: Passage, index: int, budget: int, choose: ChooseThought
) -> TokenScore:
    """The reference decoder's score of one token."""
    weight, thought = None, None
    if budget:
        prediction = reference.predict(passage.ids[:index], budget, choose)
        logits_V = prediction.logits_V
        weight, thought = prediction.mixing_weight, prediction.thought_ids
    else:
        logits_V = reference.predict_plainly(passage.ids[:index])
    token = passage.ids[index]
    among = None
    if token in passage.allowed:
        among = logits_V[list(passage.allowed)].log_softmax(-1)[passage.allowed.index(token)].item()
    logprob = logits_V.log_softmax(-1)[token].item()
    return TokenScore(logprob, int(logits_V.argmax()) == token, among, weight, thought)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_scored_token_is_the_reference_decoders(
    checkpoint: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where texts are padded together and thoughts are decoded in several runs."""
    monkeypatch.setitem(local.TOKENS_AT_A_TIME, "cpu", 60)
    reference = ReferenceDecoder.from_checkpoint(checkpoint)
    choose = seeded_thought(7, temperature) if temperature else greedy_thought
    backend = backend_of(checkpoint, ThoughtSettings(BUDGETS, temperature, seed=7))
    for passage, scores in zip(PASSAGES, backend.score(PASSAGES, with_thoughts=True), strict=True):
        assert list(scores) == list(BUDGETS)
        for budget, by_token in scores.items():
            assert len(by_token) == passage.num_scored
            for index, found in enumerate(by_token, start=passage.start):
                wanted = expected(reference, passage, index, budget, choose)
                assert found.thought_ids == wanted.thought_ids
                assert found.is_likeliest == wanted.is_likeliest
                for mine, theirs in [
                    (found.logprob, wanted.logprob),
                    (found.among_allowed, wanted.among_allowed),
                    (found.mixing_weight, wanted.mixing_weight),
                ]:
                    assert mine == (theirs and pytest.approx(theirs, abs=TOLERANCE))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


def test_thoughts_are_returned_only_on_request(mistral: Path) -> None:
    (scores,) = backend_of(mistral, ThoughtSettings((0, 2))).score(PASSAGES[:1])
    assert {score.thought_ids for score in scores[2]} == {None}
    assert all(score.mixing_weight is not None for score in scores[2])


def test_reset_embeddings_are_the_reference_decoders(mistral: Path) -> None:
    reference = ReferenceDecoder.from_checkpoint(mistral, "reset")
    loaded = load_for_evaluation(mistral, "reset", "cpu", "float32")
    passage = PASSAGES[1]
    (scores,) = LocalBackend(*loaded, ThoughtSettings((3,), 0.0)).score([passage])
    for index, found in enumerate(scores[3], start=passage.start):
        wanted = expected(reference, passage, index, 3, greedy_thought)
        assert found.logprob == pytest.approx(wanted.logprob, abs=TOLERANCE)


def test_a_text_without_room_is_refused(mistral: Path) -> None:
    passage = Passage([5] * 1021, 1000)
    with pytest.raises(UsageError, match="1021 tokens with thoughts of 4 needs 1026 positions"):
        backend_of(mistral, ThoughtSettings((0, 4))).score([passage])


def test_bfloat16_is_close(mistral: Path) -> None:
    loaded = load_for_evaluation(mistral, None, "cpu", "bfloat16")
    (rough,) = LocalBackend(*loaded, ThoughtSettings((0,))).score(PASSAGES[1:2])
    (exact,) = backend_of(mistral, ThoughtSettings((0,))).score(PASSAGES[1:2])
    for mine, theirs in zip(rough[0], exact[0], strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=0.5)
        assert math.isfinite(mine.logprob)
