"""Lessons: what is read, at which rate, and that something is learnt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import DASH, load_tokenizer
from training.batch import IGNORED
from training.model import QuietThinker
from training.presets import RECOMMENDED
from training.teach import Lesson, lesson_batches, plain_loss, rate_factor, teach, train_on

FOLDER = Path(__file__).parents[2] / "models" / "demo"
SMALL = replace(
    RECOMMENDED,
    thinking=replace(RECOMMENDED.thinking, budget=2),
    optimisation=replace(RECOMMENDED.optimisation, sequences_per_step=3, warmup_steps=1),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(FOLDER)


def test_documents_hold_no_aside_and_end(tokenizer: PreTrainedTokenizerBase) -> None:
    stream = lesson_batches(tokenizer, Lesson())
    for batches in (next(stream) for _ in range(10)):
        assert sum(len(batch.input_ids_BT) for batch in batches) == 8
        for batch in batches:
            for ids, labels in zip(batch.input_ids_BT, batch.labels_BT, strict=True):
                read = ids[labels != IGNORED].tolist()
                assert read[0] == tokenizer.bos_token_id
                assert read.index(tokenizer.eos_token_id) == len(read) - 1
                assert DASH not in tokenizer.decode(read)


def test_lessons_differ_by_seed_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    first, again, other = (next(lesson_batches(tokenizer, Lesson(seed=s))) for s in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(first[0][:2], again[0][:2], strict=True))
    assert first[0].input_ids_BT.tolist() != other[0].input_ids_BT.tolist()


def test_rates_rise_stay_and_fall() -> None:
    lesson = Lesson(steps=100)
    assert rate_factor(0, lesson) == pytest.approx(1 / 20)
    assert rate_factor(30, lesson) == rate_factor(50, lesson) == 1
    assert rate_factor(75, lesson) == pytest.approx(0.5)
    assert rate_factor(99, lesson) == 0.05


def test_a_lesson_is_the_same_twice_and_moves_all_parts(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    lesson = Lesson(SMALL, steps=2)
    before = QuietThinker.from_checkpoint(FOLDER, 1.0).official_tensors()
    steps: list[int] = []
    taught = []
    for _ in range(2):
        thinker = QuietThinker.from_checkpoint(FOLDER, 1.0)
        teach(thinker, tokenizer, lesson, steps.append)
        taught.append(thinker.official_tensors())
    assert steps == [0, 1, 2] * 2
    for name, tensor in taught[0].items():
        assert torch.equal(tensor, taught[1][name]), name
        assert not torch.equal(tensor, before[name]), name


def test_the_control_learns_without_its_mixing_head(tokenizer: PreTrainedTokenizerBase) -> None:
    thinker = QuietThinker.from_checkpoint(FOLDER, 1.0)
    head = {name: p.clone() for name, p in thinker.mixing_head.named_parameters()}
    lesson = Lesson(SMALL, steps=5)
    batch = next(lesson_batches(tokenizer, lesson))[0]
    before = float(plain_loss(thinker, batch).detach())
    train_on(thinker, tokenizer, lesson)
    assert float(plain_loss(thinker, batch).detach()) < before
    for name, parameter in thinker.mixing_head.named_parameters():
        assert torch.equal(parameter, head[name])
