"""The thought gate: how much a thought is expected to save, known before it is thought.

Most thoughts change nothing, and which ones will can be told from the base hidden state: a small
head on it estimates the *expected gain* of a thought, in nats. A request thinks before a token only
where that is above its `thought_threshold`. By calibration the expected gain is the KL divergence
of the mixed from the base prediction, which is what the gate is fitted to.

Shapes: N rows, H hidden, G the gate's hidden layer, K the budgets that it was fitted for, V
vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import softplus

GateTensors = tuple[torch.Tensor, ...]
"""What a gate computes with: its interpolation table, and weight and bias of both layers."""


@dataclass(frozen=True)
class GateConfig:
    """`quiet_star.gate` in a checkpoint's config.json.

    `hidden_size`: of the gate's hidden layer. `budgets`: the thought budgets that it was fitted
    for, ascending. Raises `ValueError` where they are not positive whole numbers.
    """

    hidden_size: int
    budgets: tuple[int, ...]

    def __post_init__(self) -> None:
        if not _is_positive(self.hidden_size):
            raise ValueError(
                f"hidden_size is {self.hidden_size!r}, expected a whole number above 0"
            )
        if (
            not self.budgets
            or not all(_is_positive(budget) for budget in self.budgets)
            or any(earlier >= later for earlier, later in pairwise(self.budgets))
        ):
            raise ValueError(
                f"budgets is {list(self.budgets)}, expected whole numbers above 0, ascending"
            )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "GateConfig":
        """The inverse of `dataclasses.asdict`; raises `ValueError` for anything else."""
        if set(fields) != {"hidden_size", "budgets"} or not isinstance(
            fields["budgets"], list | tuple
        ):
            raise ValueError("expected a hidden_size and a list of budgets")
        return cls(fields["hidden_size"], tuple(fields["budgets"]))


class ThoughtGate(nn.Sequential):
    """Two-layer ReLU MLP from the base hidden state to a thought's expected gain, one output per
    budget that it was fitted for. Computes in float32.

    The positions of the linear layers, 0 and 2, are in the tensor names (`thought_gate.{0,2}`).
    """

    interpolation_BK: torch.Tensor

    def __init__(self, hidden_size: int, config: GateConfig) -> None:
        super().__init__(
            nn.Linear(hidden_size, config.hidden_size, dtype=torch.float32),
            nn.ReLU(),
            nn.Linear(config.hidden_size, len(config.budgets), dtype=torch.float32),
        )
        table_BK = interpolation_table(config.budgets)
        self.register_buffer("interpolation_BK", table_BK, persistent=False)

    def gains(self, base_NH: torch.Tensor) -> torch.Tensor:
        """The expected gains at the fitted budgets, (N, K) float32, in nats, from hidden states
        after the base model's final norm.
        """
        return softplus(self(base_NH.float()))

    def expected_gain(self, base_NH: torch.Tensor, budget_N: torch.Tensor) -> torch.Tensor:
        """The expected gains, (N,) float32, in nats, of thoughts of these budgets (int64).

        Between fitted budgets they are interpolated, from 0 at budget 0; beyond the last one they
        are those of the last.
        """
        row_N = budget_N.clamp(max=len(self.interpolation_BK) - 1)
        return (self.gains(base_NH) * self.interpolation_BK[row_N]).sum(dim=-1)

    @property
    def tensors(self) -> GateTensors:
        """What `fused_gain` takes behind hidden states and budgets."""
        first, last = self[0], self[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        layers = (first.weight, first.bias, last.weight, last.bias)
        return (self.interpolation_BK, *(tensor.detach() for tensor in layers))


def fused_gain(
    base_NH: torch.Tensor,
    budget_N: torch.Tensor,
    interpolation_BK: torch.Tensor,
    weight_GH: torch.Tensor,
    bias_G: torch.Tensor,
    weight_KG: torch.Tensor,
    bias_K: torch.Tensor,
) -> torch.Tensor:
    """`ThoughtGate.expected_gain` of the gate's tensors, (N,) float32, with its matrix products as
    sums: to be compiled, which makes one operation of it all. The layers are so small that calling
    one operation after the other takes longer than computing them.
    """
    hidden_NG = torch.relu((base_NH.float()[:, None] * weight_GH).sum(dim=-1) + bias_G)
    gain_NK = softplus((hidden_NG[:, None] * weight_KG).sum(dim=-1) + bias_K)
    row_N = budget_N.clamp(max=len(interpolation_BK) - 1)
    return (gain_NK * interpolation_BK[row_N]).sum(dim=-1)


def interpolation_table(budgets: tuple[int, ...]) -> torch.Tensor:
    """The weights of the outputs for `budgets` at every budget from 0 to the last, (B + 1, K)."""
    table_BK = torch.zeros(budgets[-1] + 1, len(budgets))
    for column, (low, high) in enumerate(pairwise((0, *budgets))):
        for budget in range(low + 1, high + 1):
            share = (budget - low) / (high - low)
            table_BK[budget, column] = share
            if column > 0:  # at budget 0 there is nothing to gain
                table_BK[budget, column - 1] = 1 - share
    return table_BK


def prediction_entropy(logits_NV: torch.Tensor) -> torch.Tensor:
    """The entropy of predictions, (N,) float32, in nats: the expected gain where there is no gate.

    No thought can be expected to save more than the base prediction is expected to cost, so the
    entropy is an upper bound, and a threshold means the same.
    """
    probability_NV = logits_NV.softmax(dim=-1, dtype=torch.float32)
    entropy_N: torch.Tensor = torch.special.entr(probability_NV).sum(dim=-1)
    return entropy_N


def _is_positive(value: Any) -> bool:
    return type(value) is int and value > 0
