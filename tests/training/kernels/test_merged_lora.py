"""LoRA merged once per step against peft's own forward and backward pass."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.training.runs import small_recipe
from training.config import Recompute
from training.kernels.cross_entropy import token_cross_entropy
from training.thoughts.batch import make_batch
from training.thoughts.outputs import StepOutput
from training.thoughts.sampling import greedy_draw
from training.trainer.build import Built, build

IDS = torch.tensor([[5, 9, 13, 21, 8, 40, 33, 12, 17, 6], [7, 7, 30, 22, 10, 2, 2, 2, 2, 2]])


def opened(folder: Path, recompute: Recompute, *, merged: bool) -> Built:
    """A model whose adapters and mixing head have effects."""
    recipe = small_recipe(
        folder, model={"lora": {"rank": 4, "alpha": 8}}, run={"recompute": recompute}
    )
    built = build(recipe)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in built.model.named_parameters():
        if "lora_B" in name or "mixing_head" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.05 * noise
    if merged and built.tuner is not None:
        built.model.merge_lora(built.tuner)
    return built


def step(built: Built, dtype: torch.dtype | None = None) -> StepOutput:
    batch = make_batch(IDS, built.tokenizer.pad_token_id)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        output: StepOutput = built.model(batch, greedy_draw)
    output.loss.backward()
    return output


def gradients(built: Built) -> dict[str, Tensor]:
    named = built.model.named_parameters()
    return {name: p.grad for name, p in named if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("recompute", ["nothing", "mlp", "layer"])
def test_a_step_is_pefts(tmp_path: Path, recompute: Recompute) -> None:
    plain, merged = (opened(tmp_path, recompute, merged=kind) for kind in (False, True))
    expected, found = step(plain), step(merged)
    assert (expected.thoughts.ids == found.thoughts.ids).all()
    torch.testing.assert_close(found.loss, expected.loss)
    assert gradients(merged).keys() == gradients(plain).keys()
    assert sum("lora_" in name for name in gradients(merged)) > 10
    torch.testing.assert_close(gradients(merged), gradients(plain), rtol=1e-3, atol=1e-6)


def test_every_step_merges_anew(tmp_path: Path) -> None:
    plain, merged = (opened(tmp_path, "mlp", merged=kind) for kind in (False, True))
    losses = []
    for built in (plain, merged):
        optimizer = torch.optim.AdamW(
            [p for p in built.model.parameters() if p.requires_grad], lr=0.01, fused=True
        )
        steps = []
        for _ in range(3):
            steps.append(step(built).loss.detach())
            optimizer.step()
            optimizer.zero_grad()
        losses.append(torch.stack(steps))
    assert losses[0][0] != losses[0][2]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)


def test_in_bfloat16_the_merged_weights_are_rounded_once(tmp_path: Path) -> None:
    exact, merged = (opened(tmp_path, "mlp", merged=True) for _ in range(2))
    expected, found = step(exact), step(merged, torch.bfloat16)
    torch.testing.assert_close(found.loss, expected.loss, rtol=0, atol=0.1)
    for gradient in gradients(merged).values():
        assert gradient.dtype == torch.float32


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(6, 8, requires_grad=True)
    weight = torch.randn(31, 8)
    targets = torch.arange(6)
    factor = torch.rand(6)
    results = []
    for frozen in (False, True):
        head = weight.clone().requires_grad_(not frozen)
        nll = token_cross_entropy(hidden, head, targets, factor)
        (gradient,) = torch.autograd.grad((nll * factor).sum(), [hidden])
        results.append(gradient)
    torch.testing.assert_close(*results)
