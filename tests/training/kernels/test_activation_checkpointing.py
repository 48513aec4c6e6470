"""Recomputed activations: the same step, and less that is kept for its backward pass."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from transformers import Olmo2Config, Olmo2ForCausalLM

from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from tests.support.training.steps import PAD, assert_same, outcome, short, texts
from training.config import OFFICIAL, Recompute, Thinking
from training.errors import UsageError
from training.kernels.activation_checkpointing import checkpoint_activations
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import StepOutput
from training.thoughts.sampling import random_draw
from training.thoughts.training_step import training_step


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return write_random_checkpoint(folder, request.param)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


@pytest.mark.parametrize("passes", [1, 4, 11, 13])  # of 11 positions
@pytest.mark.parametrize("what", get_args(Recompute))
def test_passes_and_recomputed_activations_change_nothing(
    mistral: Path, passes: int, what: Recompute
) -> None:
    preset = short(OFFICIAL, Thinking(budget=3, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral).train()
    batch = texts()
    whole = outcome(training_step, thinker, batch, preset)
    checkpoint_activations(thinker.base_model, what)
    assert_same(outcome(training_step, thinker, batch, preset, passes=passes), whole)


def test_less_is_kept_the_more_is_recomputed(checkpoint: Path) -> None:
    preset = short(OFFICIAL, Thinking(budget=3, ahead=2))
    kept = []
    for what in get_args(Recompute):
        thinker = QuietThinker.from_checkpoint(checkpoint).train()
        checkpoint_activations(thinker.base_model, what)
        kept.append(bytes_kept(partial(training_step, thinker, texts(), preset, random_draw())))
    nothing, mlp, layer = kept
    assert layer < 0.6 * mlp
    assert mlp < 0.75 * nothing


def test_a_norm_that_is_not_before_the_mlp() -> None:
    """OLMo 2 normalises the output of attention; other models name the norm before the MLP so."""
    torch.manual_seed(0)
    config = Olmo2Config(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=PAD,
    )
    model = Olmo2ForCausalLM(config).train()
    ids = torch.arange(3, 15)[None]
    found = []
    for what in ("nothing", "mlp"):
        checkpoint_activations(model, what)
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        found.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    torch.testing.assert_close(*found)


def bytes_kept(step: Callable[[], StepOutput]) -> int:
    """The size of all that autograd keeps of a step."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = step()
    assert output.loss.requires_grad
    return sum(sizes.values())


def test_reentrant_checkpointing_is_refused(mistral: Path) -> None:
    thinker = QuietThinker.from_checkpoint(mistral).train()
    thinker.base_model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(UsageError, match="use_reentrant=False"):
        training_step(thinker, texts(), short(OFFICIAL, Thinking(budget=1, ahead=1)), random_draw())
