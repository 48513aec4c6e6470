"""The model in this process against the reference decoder, position by position."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from quietstar_infer.config import load_tokenizer
from quietstar_infer.reference import (
    ChooseThought,
    ReferenceDecoder,
    greedy_thought,
    seeded_thought,
)
from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from training.errors import UsageError
from training.evaluations import thinker_route
from training.evaluations.backends.base import Sampling, TokenScore
from training.evaluations.backends.local import LocalBackend
from training.evaluations.evaluated_model import load_for_evaluation
from training.evaluations.tasks.passages import Passage
from training.thoughts.decode import ThoughtSettings

BUDGETS = (0, 1, 4)
TOLERANCE = 1e-4
ALLOWED = (5, 8, 9)
# Of different lengths, and with different numbers of wanted tokens.
PASSAGES = [
    Passage([1, 9, 8, 5, 30, 9], 1),
    Passage([1, *range(10, 30), 8, 40, 9], 21, ALLOWED),
    Passage([1, *range(10, 36, 2), 5], 14, ALLOWED),
]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return write_random_checkpoint(folder, request.param)


def route_of(checkpoint: Path, thoughts: ThoughtSettings) -> LocalBackend:
    loaded = load_for_evaluation(checkpoint, None, "cpu", "float32")
    return LocalBackend(*loaded, thoughts)


def expected(
    reference: ReferenceDecoder, passage: Passage, index: int, budget: int, choose: ChooseThought
) -> TokenScore:
    """What the reference decoder says about one token."""
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
def test_every_wanted_token_is_the_reference_decoders(
    checkpoint: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where texts are padded together and thought about in several runs."""
    monkeypatch.setitem(thinker_route.TOKENS_AT_A_TIME, "cpu", 60)
    reference = ReferenceDecoder.from_checkpoint(checkpoint)
    choose = seeded_thought(7, temperature) if temperature else greedy_thought
    route = route_of(checkpoint, ThoughtSettings(BUDGETS, temperature, seed=7))
    for passage, scores in zip(PASSAGES, route.score(PASSAGES, with_thoughts=True), strict=True):
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


def test_thoughts_are_kept_only_where_they_are_wanted(mistral: Path) -> None:
    (scores,) = route_of(mistral, ThoughtSettings((0, 2))).score(PASSAGES[:1])
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


@pytest.mark.parametrize("budget", [0, 3])
def test_greedy_continuations_are_the_reference_decoders(mistral: Path, budget: int) -> None:
    prompt = [1, 20, 33, 9]
    said, _ = ReferenceDecoder.from_checkpoint(mistral).generate(prompt, 12, budget)
    route = route_of(mistral, ThoughtSettings((budget,), 0.0))
    (text,) = route.continue_text(prompt, budget, Sampling(12, 0.0, (1,)))
    until_end = itertools.takewhile(lambda token: token != 2, said)
    assert text == load_tokenizer(mistral).decode(list(until_end))


def test_continuations_depend_on_their_seed_alone(mistral: Path) -> None:
    route = route_of(mistral, ThoughtSettings((2,)))
    prompt = [1, 20, 33, 9]
    first, second, again = route.continue_text(prompt, 2, Sampling(10, 1.0, (5, 6, 5)))
    assert first == again != second
    assert route.continue_text(prompt, 2, Sampling(10, 1.0, (6,))) == [second]


def test_a_continuation_ends_before_a_stop_text(mistral: Path) -> None:
    route = route_of(mistral, ThoughtSettings((0,)))
    prompt = [1, 20, 33, 9]
    (whole,) = route.continue_text(prompt, 0, Sampling(10, 0.0, (1,)))
    word = whole.split()[3]
    (cut,) = route.continue_text(prompt, 0, Sampling(10, 0.0, (1,), (word,)))
    assert cut == whole[: whole.index(word)]


def test_a_text_without_room_is_refused(mistral: Path) -> None:
    passage = Passage([5] * 1021, 1000)
    with pytest.raises(UsageError, match="1021 tokens with thoughts of 4 needs 1026 positions"):
        route_of(mistral, ThoughtSettings((0, 4))).score([passage])


def test_bfloat16_is_close(mistral: Path) -> None:
    loaded = load_for_evaluation(mistral, None, "cpu", "bfloat16")
    (rough,) = LocalBackend(*loaded, ThoughtSettings((0,))).score(PASSAGES[1:2])
    (exact,) = route_of(mistral, ThoughtSettings((0,))).score(PASSAGES[1:2])
    for mine, theirs in zip(rough[0], exact[0], strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=0.5)
        assert math.isfinite(mine.logprob)


def test_a_device_that_is_not_there(mistral: Path) -> None:
    with pytest.raises(UsageError, match="--device"):
        load_for_evaluation(
            mistral, None, "cuda:99" if torch.cuda.is_available() else "cuda", "float32"
        )


@pytest.mark.parametrize("budgets", [(), (2, 2), (4, 2), (-1,)])
def test_budgets_must_rise(budgets: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="must be 0 or more, and rise"):
        ThoughtSettings(budgets)
