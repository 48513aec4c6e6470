"""Metrics of training steps, as sums that add up over batches and processes.

Shapes: M metrics; B sequences, T text positions, P thoughts per position, K thought tokens, S
tokens ahead.
"""

import torch
from torch import Tensor

from training.thoughts.losses import StepTotals
from training.thoughts.outputs import StepOutput

METRICS = (
    "tokens",
    "loss",
    "base_nll",
    "nll",
    "gain",
    "reward",
    "mixing_weight",
    "thought_entropy",
    "thought_repeated",
)
"""In the order of M. All but `tokens` are per text token, losses in nats: `nll` is the loss of the
next token predicted after a thought, `gain` is `base_nll` - `nll`, `reward` the gain over all
tokens ahead, `thought_repeated` the share of thought tokens that repeat the one before; `loss` is
the objective's.
"""


@torch.no_grad()
def metric_sums(output: StepOutput, totals: StepTotals | None = None) -> Tensor:
    """Sums over all text tokens that have a successor, (M,), float64; `totals` are those that the
    output's loss is a part by.
    """
    real_BT = output.real_BTS[..., 0]
    tokens = real_BT.sum()
    base = output.tokens.base_nll_BT.sum()
    mixed = output.tokens.talk_nll_BTPS[..., 0].mean(dim=2).sum()
    ids_BTPK = output.thoughts.ids[:, :-1]
    repeats_BTPK = (ids_BTPK[..., 1:] == ids_BTPK[..., :-1]).double()
    sums = (
        tokens,
        output.loss.detach() * (tokens if totals is None else totals.targets_S[0]),
        base,
        mixed,
        base - mixed,
        _over(real_BT, output.reward_BTP[..., None]),
        output.tokens.mixing_weight_BTPS[..., 0].mean(dim=2).sum(),
        _over(real_BT, output.thoughts.entropy[:, :-1]),
        _over(real_BT, repeats_BTPK),
    )
    return torch.stack([metric.double() for metric in sums])


def metric_means(sums_M: Tensor) -> dict[str, float]:
    """All metrics but `tokens`, per text token."""
    tokens, *rest = sums_M.tolist()
    return {name: total / max(tokens, 1) for name, total in zip(METRICS[1:], rest, strict=True)}


def _over(real_BT: Tensor, x_BTPK: Tensor) -> Tensor:
    """The sum over real positions of the mean over thoughts and their tokens (0 without any)."""
    mean_BT = x_BTPK.double().sum(dim=(2, 3)) / max(x_BTPK.shape[2] * x_BTPK.shape[3], 1)
    return (mean_BT * real_BT).sum()
