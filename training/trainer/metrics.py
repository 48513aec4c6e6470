"""What is worth knowing about a training step: sums that add up over batches and processes.

Shapes: F facts; B sequences, T text positions, P thoughts per position, K thought tokens, S tokens
ahead.
"""

import torch
from torch import Tensor

from training.thoughts.outputs import StepOutput

FACTS = (
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
"""The order of F. But for `tokens` all are per text token, in nats where they are losses: `nll` is
the loss of the next token as it is predicted after a thought, `gain` what the thought saved of
`base_nll`, `reward` the gain over all tokens ahead, `thought_repeated` the share of thought tokens
that repeat the one before."""


@torch.no_grad()
def sum_up(output: StepOutput) -> Tensor:
    """Sums over all text tokens that have a successor, (F,), float64."""
    real_BT = output.real_BTS[..., 0]
    tokens = real_BT.sum()
    base = output.tokens.base_nll_BT.sum()
    mixed = output.tokens.talk_nll_BTPS[..., 0].mean(dim=2).sum()
    ids_BTPK = output.thoughts.ids[:, :-1]
    repeats_BTPK = (ids_BTPK[..., 1:] == ids_BTPK[..., :-1]).double()
    sums = (
        tokens,
        output.loss.detach() * tokens,
        base,
        mixed,
        base - mixed,
        _over(real_BT, output.reward_BTP[..., None]),
        output.tokens.mixing_weight_BTPS[..., 0].mean(dim=2).sum(),
        _over(real_BT, output.thoughts.entropy[:, :-1]),
        _over(real_BT, repeats_BTPK),
    )
    return torch.stack([fact.double() for fact in sums])


def means(sums_F: Tensor) -> dict[str, float]:
    """All facts but `tokens`, per text token."""
    tokens, *rest = sums_F.tolist()
    return {name: fact / max(tokens, 1) for name, fact in zip(FACTS[1:], rest, strict=True)}


def _over(real_BT: Tensor, x_BTPK: Tensor) -> Tensor:
    """The sum over real positions of the mean over thoughts and their tokens (0 without any)."""
    mean_BT = x_BTPK.double().sum(dim=(2, 3)) / max(x_BTPK.shape[2] * x_BTPK.shape[3], 1)
    return (mean_BT * real_BT).sum()
