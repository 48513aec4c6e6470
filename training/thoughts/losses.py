"""The objective, from token losses to one number (paper, section 4.4; official code, L1930-2110).

A step of several batches, accumulated or on several processes, has the loss of all of them as one
batch: each batch divides its sums by the numbers of the whole step (`StepTotals`), and their losses
add up.

Shapes: B sequences, T text positions, P thoughts per position, S tokens ahead, K thought tokens.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import Averaging, Objective


class StepTotals(NamedTuple):
    """What the means of a whole step run over: its targets s tokens ahead (S,), its positions with
    a target, its sequences, and the positions of its longest batch, padding too, () each.
    """

    targets_S: Tensor
    positions: Tensor
    sequences: Tensor
    longest: Tensor

    @classmethod
    def of(cls, real_BTS: Tensor) -> "StepTotals":
        """Those of one batch."""
        targets_S = real_BTS.sum(dim=(0, 1))
        sequences, positions = (targets_S.new_tensor(number) for number in real_BTS.shape[:2])
        return cls(targets_S, real_BTS.any(dim=-1).sum(), sequences, positions)

    @classmethod
    def together(cls, totals: Iterable["StepTotals"]) -> "StepTotals":
        """Those of several parts of a step."""
        targets, positions, sequences, longest = map(torch.stack, zip(*totals, strict=True))
        return cls(targets.sum(dim=0), positions.sum(), sequences.sum(), longest.max())


def likelihood_mean(
    nll: Tensor, real: Tensor, averaging: Averaging, number: Tensor | None = None
) -> Tensor:
    """The mean of token losses that are 0 where `real` is False; the shapes broadcast. `number`:
    what it runs over in a step of several batches, where a loss of exactly 0 counts, too.
    """
    if number is None:
        number = (nll != 0).sum() if averaging == "nonzero" else real.expand_as(nll).sum()
    return nll.sum() / number.clamp(min=1)


def talk_losses(
    nll_BTPS: Tensor, real_BTS: Tensor, averaging: Averaging, totals: StepTotals | None = None
) -> Tensor:
    """The mean loss of mixed predictions s tokens ahead, (S,)."""
    real_BTPS = real_BTS[:, :, None].expand_as(nll_BTPS)
    return torch.stack(
        [
            likelihood_mean(
                nll_BTPS[..., s],
                real_BTPS[..., s],
                averaging,
                None if totals is None else totals.targets_S[s] * nll_BTPS.shape[2],
            )
            for s in range(nll_BTPS.shape[-1])
        ]
    )


def likely_factors(
    real_BTS: Tensor, per_position: int, objective: Objective, totals: StepTotals | None = None
) -> tuple[Tensor, Tensor]:
    """The factors of token losses in the loss: of the base (), of the mixed predictions (S,).

    Exact, except under the official averaging if a token's loss is exactly 0.
    """
    number_S = (totals or StepTotals.of(real_BTS)).targets_S.clamp(min=1)
    talk_S = objective.talk_weight / (number_S * per_position * len(number_S))
    return objective.base_weight / number_S[0], talk_S


def rewards(base_nll_BT: Tensor, talk_nll_BTPS: Tensor, real_BTS: Tensor) -> Tensor:
    """R_i = Σ_s (NLL_base of x_i+1+s - NLL_mixed of it) over the targets, (B, T, P), detached.

    The base's loss of a token does not depend on the position that looks ahead to it; but it counts
    only where that position looks ahead to the token, and not beyond the end of its document.
    """
    base_BTS = later_losses(base_nll_BT, real_BTS)
    return (base_BTS[:, :, None] - talk_nll_BTPS).sum(dim=-1).detach()


def later_losses(base_nll_BT: Tensor, real_BTS: Tensor) -> Tensor:
    """The base's losses of the tokens ahead of each position, (B, T, S); 0 without a target."""
    ahead = real_BTS.shape[-1]
    return F.pad(base_nll_BT, (0, ahead - 1)).unfold(1, ahead, 1) * real_BTS


def advantages(reward_BTP: Tensor, *, keep_negative: bool) -> Tensor:
    """A_i = R_i - mean of R_i over the position's thoughts; a single thought keeps its reward."""
    if reward_BTP.shape[-1] > 1:
        reward_BTP = reward_BTP - reward_BTP.mean(dim=-1, keepdim=True)
    return reward_BTP if keep_negative else reward_BTP.clamp(min=0)


def policy_weights(
    reward_BTP: Tensor,
    real_BTS: Tensor,
    budget: int,
    objective: Objective,
    totals: StepTotals | None = None,
) -> Tensor:
    """The factor of -log p(t_j) in the policy loss, for all tokens of a thought, (B, T, P).

    advantage / number of positions, and / budget for the mean over tokens. The official mean runs
    over all positions, padding too, that lie at least one token further from the end than their
    rewards need. `real_BTS` is (B, T, S).
    """
    totals = totals or StepTotals.of(real_BTS)
    counted_BT, number = real_BTS.any(dim=-1), totals.positions
    if objective.averaging == "nonzero":
        position_T = torch.arange(real_BTS.shape[1], device=real_BTS.device)
        end = totals.longest - real_BTS.shape[2]
        counted_BT, number = (position_T < end).expand_as(counted_BT), totals.sequences * end
    number = number.clamp(min=1) * reward_BTP.shape[-1]
    if objective.thought_reduction == "mean":
        number = number * max(budget, 1)
    advantage_BTP = advantages(reward_BTP, keep_negative=objective.keep_negative_advantages)
    return advantage_BTP * counted_BT[..., None] / number


def total_loss(
    base_loss: Tensor, talk_loss_S: Tensor, policy_loss: Tensor, objective: Objective
) -> Tensor:
    """The weighted sum; a base or policy term of weight 0 has no part in the gradients."""
    loss = objective.talk_weight * talk_loss_S.mean()
    if objective.base_weight:
        loss = loss + objective.base_weight * base_loss
    if objective.policy_weight:
        loss = loss + objective.policy_weight * policy_loss
    return loss
