"""Texts continued in this process, against the reference decoder."""

import itertools
from pathlib import Path

import pytest

from quietstar_infer.config import load_tokenizer
from quietstar_infer.reference import (
    ReferenceDecoder,
)
from tests.support.checkpoints import write_random_checkpoint
from training.evaluations.backends.base import Sampling
from training.evaluations.backends.local import LocalBackend
from training.evaluations.evaluated_model import load_for_evaluation
from training.thoughts.decode import ThoughtSettings


def backend_of(checkpoint: Path, thoughts: ThoughtSettings) -> LocalBackend:
    loaded = load_for_evaluation(checkpoint, None, "cpu", "float32")
    return LocalBackend(*loaded, thoughts)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


@pytest.mark.parametrize("budget", [0, 3])
def test_greedy_continuations_are_the_reference_decoders(mistral: Path, budget: int) -> None:
    prompt = [1, 20, 33, 9]
    sampled, _ = ReferenceDecoder.from_checkpoint(mistral).generate(prompt, 12, budget)
    backend = backend_of(mistral, ThoughtSettings((budget,), 0.0))
    (text,) = backend.continue_text(prompt, budget, Sampling(12, 0.0, (1,)))
    until_end = itertools.takewhile(lambda token: token != 2, sampled)
    assert text == load_tokenizer(mistral).decode(list(until_end))


def test_continuations_depend_on_their_seed_alone(mistral: Path) -> None:
    backend = backend_of(mistral, ThoughtSettings((2,)))
    prompt = [1, 20, 33, 9]
    first, second, again = backend.continue_text(prompt, 2, Sampling(10, 1.0, (5, 6, 5)))
    assert first == again != second
    assert backend.continue_text(prompt, 2, Sampling(10, 1.0, (6,))) == [second]


def test_a_continuation_ends_before_a_stop_text(mistral: Path) -> None:
    backend = backend_of(mistral, ThoughtSettings((0,)))
    prompt = [1, 20, 33, 9]
    (whole,) = backend.continue_text(prompt, 0, Sampling(10, 0.0, (1,)))
    word = whole.split()[3]
    (cut,) = backend.continue_text(prompt, 0, Sampling(10, 0.0, (1,), (word,)))
    assert cut == whole[: whole.index(word)]
