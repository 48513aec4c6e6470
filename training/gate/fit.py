"""Fits a thought gate to labelled positions.

The loss is the Poisson deviance g − y·log g of the expected gain g to the label y: its minimum is
the conditional mean of the label, so that the gate is calibrated, and it weighs a relative error of
a small gain more than the squared error does.

Shapes: H hidden, K budgets; N positions.
"""

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from quietstar_infer.gate import ThoughtGate
from training.gate.labels import LabelledPositions
from training.gate.settings import GateSettings

_LEAST_GAIN = 1e-6  # nats; keeps the logarithm finite


def fit_gate(
    positions: LabelledPositions, budgets: tuple[int, ...], settings: GateSettings
) -> ThoughtGate:
    """A gate for these budgets, which the labels are in the order of; on the CPU."""
    generator = torch.Generator().manual_seed(settings.seed)
    mean_H = positions.base_NH.mean(dim=0)
    spread_H = positions.base_NH.std(dim=0).clamp(min=1e-6)
    input_NH = (positions.base_NH - mean_H) / spread_H
    gate = _new_gate(positions, budgets, settings)
    steps = settings.epochs * -(-len(positions) // settings.batch_size)
    optimizer = torch.optim.AdamW(
        gate.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1
    )
    with tqdm(total=steps, desc="gate", unit="step") as bar:
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(input_NH), generator=generator).split(
                settings.batch_size
            ):
                loss = deviance(gate.gains(input_NH[rows]), positions.gain_NK[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
            bar.set_postfix(loss=f"{loss.item():.4g}")
    _take_raw_inputs(gate, mean_H, spread_H)
    return gate.requires_grad_(False).eval()


def deviance(expected_NK: Tensor, gain_NK: Tensor) -> Tensor:
    """The mean Poisson deviance, without the part that depends on the labels alone."""
    return (expected_NK - gain_NK * expected_NK.clamp(min=_LEAST_GAIN).log()).mean()


def _new_gate(
    positions: LabelledPositions, budgets: tuple[int, ...], settings: GateSettings
) -> ThoughtGate:
    """A gate whose expected gains are near the mean label of each budget."""
    torch.manual_seed(settings.seed)
    gate = ThoughtGate(positions.base_NH.shape[1], settings.gate_config(budgets))
    last = gate[2]
    assert isinstance(last, torch.nn.Linear)
    mean_K = positions.gain_NK.mean(dim=0).clamp(min=_LEAST_GAIN)
    with torch.no_grad():
        last.bias.copy_(mean_K.expm1().log())  # the inverse of softplus
        last.weight.mul_(0.1)
    return gate


@torch.no_grad()
def _take_raw_inputs(gate: ThoughtGate, mean_H: Tensor, spread_H: Tensor) -> None:
    """Fold the standardisation of the inputs, (h − mean) / spread, into the first layer."""
    first = gate[0]
    assert isinstance(first, torch.nn.Linear)
    first.weight.div_(spread_H)
    first.bias.sub_(first.weight @ mean_H)
