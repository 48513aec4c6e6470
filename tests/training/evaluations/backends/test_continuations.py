"""Texts continued in this process, against the reference decoder."""

import itertools
from pathlib import Path
from statistics import median

import pytest

from quietstar_infer.config import load_tokenizer
from quietstar_infer.reference import (
    ReferenceDecoder,
)
from tests.support.checkpoints import write_random_checkpoint
from tests.support.training.gates import copy_with_gate
from training.evaluations.backends.base import Sampling
from training.evaluations.backends.local import LocalBackend
from training.evaluations.cost import Cost
from training.evaluations.evaluated_model import load_evaluated_gate, load_for_evaluation
from training.evaluations.sweep import Cell
from training.thoughts.decode import ThoughtSettings


def backend_of(checkpoint: Path, thoughts: ThoughtSettings) -> LocalBackend:
    loaded = load_for_evaluation(checkpoint, None, "cpu", "float32")
    gate = load_evaluated_gate(checkpoint, loaded.thinker)
    return LocalBackend(*loaded, thoughts, gate)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


@pytest.mark.parametrize("budget", [0, 3])
def test_greedy_continuations_are_the_reference_decoders(mistral: Path, budget: int) -> None:
    prompt = [1, 20, 33, 9]
    sampled, _ = ReferenceDecoder.from_checkpoint(mistral).generate(prompt, 12, budget)
    backend = backend_of(mistral, ThoughtSettings((budget,), 0.0))
    (found,) = backend.continue_text(prompt, Cell(budget), Sampling(12, 0.0, (1,)))
    until_end = list(itertools.takewhile(lambda token: token != 2, sampled))
    assert found.text == load_tokenizer(mistral).decode(until_end)
    tokens = min(12, len(until_end) + 1)
    assert found.cost == Cost(tokens, tokens if budget else 0, tokens * budget)


@pytest.mark.parametrize("has_gate", [False, True], ids=["entropy", "learned"])
def test_a_threshold_skips_the_thoughts_that_the_reference_decoder_skips(
    mistral: Path, has_gate: bool, tmp_path: Path
) -> None:
    folder = copy_with_gate(mistral, tmp_path / "gate", (3,)) if has_gate else mistral
    reference, prompt = ReferenceDecoder.from_checkpoint(folder), [1, 20, 33, 9]
    threshold = median(p.expected_gain for p in reference.generate(prompt, 12, 3)[1])
    sampled, predictions = reference.generate(prompt, 12, 3, threshold=threshold)
    until_end = list(itertools.takewhile(lambda token: token != 2, sampled))
    backend = backend_of(folder, ThoughtSettings((3,), 0.0, thresholds=(threshold,)))
    # Batched with others, which think elsewhere.
    found, *_ = backend.continue_text(prompt, Cell(3, threshold), Sampling(12, 0.0, (1, 2)))
    assert found.text == load_tokenizer(folder).decode(until_end)
    tokens = min(12, len(until_end) + 1)
    thoughts = sum(bool(prediction.thought_ids) for prediction in predictions[:tokens])
    assert 0 < thoughts < tokens, "the threshold decides"
    assert found.cost == Cost(tokens, thoughts, 3 * thoughts)


def test_sampled_continuations_think_by_themselves(mistral: Path) -> None:
    """Whether one is thought about does not depend on those beside it."""
    backend = backend_of(mistral, ThoughtSettings((2,), thresholds=(1.5,)))
    prompt, cell = [1, 20, 33, 9], Cell(2, 1.5)
    seeds = (5, 6, 7, 8)
    together = backend.continue_text(prompt, cell, Sampling(10, 1.0, seeds))
    alone = [backend.continue_text(prompt, cell, Sampling(10, 1.0, (seed,)))[0] for seed in seeds]
    assert together == alone
    assert len({found.cost.thoughts for found in together}) > 1


def test_continuations_depend_on_their_seed_alone(mistral: Path) -> None:
    backend = backend_of(mistral, ThoughtSettings((2,)))
    prompt = [1, 20, 33, 9]
    first, second, again = backend.continue_text(prompt, Cell(2), Sampling(10, 1.0, (5, 6, 5)))
    assert first == again != second
    assert backend.continue_text(prompt, Cell(2), Sampling(10, 1.0, (6,))) == [second]


def test_a_continuation_ends_before_a_stop_text(mistral: Path) -> None:
    backend = backend_of(mistral, ThoughtSettings((0,)))
    prompt = [1, 20, 33, 9]
    (found,) = backend.continue_text(prompt, Cell(0), Sampling(10, 0.0, (1,)))
    whole = found.text
    word = whole.split()[3]
    (cut,) = backend.continue_text(prompt, Cell(0), Sampling(10, 0.0, (1,), (word,)))
    assert cut.text == whole[: whole.index(word)]
