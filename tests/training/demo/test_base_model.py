"""Training the base model: batches, schedule, and that a few steps learn, reproducibly."""

import itertools

import pytest
import torch

from training.demo.base_model import (
    BaseModelConfig,
    BaseModelTraining,
    batches,
    next_token_batch,
    next_token_loss,
    rate_factor,
)
from training.demo.base_model_build import demo_base_model, demo_tokenizer
from training.demo.corpus.documents import documents
from training.demo.recipe import BaseModelRecipe
from training.thoughts.batch import IGNORED

TINY = BaseModelRecipe(
    model=BaseModelConfig(hidden=64, layers=1, heads=2, intermediate=64, max_positions=256),
    training=BaseModelTraining(steps=12, documents_per_step=8, warmup_steps=2),
    tokenizer_documents=500,
)


def test_labels_are_the_next_tokens() -> None:
    batch = next_token_batch([[5, 6, 7], [8, 9]], padding=1)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 1]]
    assert batch.labels.tolist() == [[6, 7, IGNORED], [9, IGNORED, IGNORED]]


def test_padding_does_not_change_the_loss() -> None:
    tokenizer = demo_tokenizer(TINY)
    model, _ = demo_base_model(TINY, tokenizer)
    rows = [tokenizer.encode(text) for text in itertools.islice(documents(5), 2)]
    assert len(rows[0]) != len(rows[1])
    with torch.no_grad():
        together = next_token_loss(model, next_token_batch(rows, padding=1))
        alone = [next_token_loss(model, next_token_batch([row], padding=1)) for row in rows]
    weights = [len(row) - 1 for row in rows]
    mean = sum(w * loss for w, loss in zip(weights, alone, strict=True)) / sum(weights)
    assert float(together) == pytest.approx(float(mean), rel=1e-5)


def test_batches_hold_every_document_once() -> None:
    tokenizer = demo_tokenizer(TINY)
    stream = batches(documents(0), tokenizer, size=4, seed=0, pool=3)
    read = [
        tokenizer.decode(ids, skip_special_tokens=True)
        for batch in itertools.islice(stream, 3)
        for ids in batch.input_ids
    ]
    assert sorted(read) == sorted(itertools.islice(documents(0), 12))


def test_every_document_ends() -> None:
    tokenizer = demo_tokenizer(TINY)
    batch = next(batches(documents(0), tokenizer, size=8, seed=0))
    assert ((batch.labels == tokenizer.eos_token_id).sum(dim=1) == 1).all()


def test_rate_rises_stays_and_falls() -> None:
    training = BaseModelTraining(steps=1000, warmup_steps=100, flat_share=0.5, last_rate=0.02)
    factors = [rate_factor(step, training) for step in range(1001)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[99:501] == [1.0] * 402
    assert factors[750] == pytest.approx(0.51)
    assert factors[1000] == pytest.approx(0.02)


def test_a_few_steps_learn_and_repeat() -> None:
    tokenizer = demo_tokenizer(TINY)
    model, summary = demo_base_model(TINY, tokenizer)
    again, summary_again = demo_base_model(TINY, tokenizer)
    assert summary == summary_again
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    uniform = torch.tensor(len(tokenizer)).log()
    held = next(batches(documents(9), tokenizer, size=32, seed=0))
    with torch.no_grad():
        assert next_token_loss(model, held) < uniform - 0.3
