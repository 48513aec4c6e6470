"""The objective, from token losses to one number (paper, section 4.4; official code, L1930-2110).

Shapes: B sequences, T text positions, P thoughts per position, S tokens ahead, K thought tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import Averaging, Objective


def likelihood_mean(nll: Tensor, real: Tensor, averaging: Averaging) -> Tensor:
    """The mean of token losses that are 0 where `real` is False; the shapes broadcast."""
    if averaging == "nonzero":
        return nll.sum() / (nll != 0).sum().clamp(min=1)
    return nll.sum() / real.expand_as(nll).sum().clamp(min=1)


def talk_losses(nll_BTPS: Tensor, real_BTS: Tensor, averaging: Averaging) -> Tensor:
    """The mean loss of mixed predictions s tokens ahead, (S,)."""
    real_BTPS = real_BTS[:, :, None].expand_as(nll_BTPS)
    return torch.stack(
        [
            likelihood_mean(nll_BTP, real_BTP, averaging)
            for nll_BTP, real_BTP in zip(nll_BTPS.unbind(-1), real_BTPS.unbind(-1), strict=True)
        ]
    )


def likely_factors(
    real_BTS: Tensor, per_position: int, objective: Objective
) -> tuple[Tensor, Tensor]:
    """The factors of token losses in the loss: of the base (), of the mixed predictions (S,).

    Exact, except under the official averaging if a token's loss is exactly 0.
    """
    number_S = real_BTS.sum(dim=(0, 1)).clamp(min=1)
    talk_S = objective.talk_weight / (number_S * per_position * len(number_S))
    return objective.base_weight / number_S[0], talk_S


def rewards(base_nll_BT: Tensor, talk_nll_BTPS: Tensor) -> Tensor:
    """R_i = Σ_s (NLL_base of x_i+1+s - NLL_mixed of it), (B, T, P), detached.

    The base's loss of a token does not depend on the position that looks ahead to it.
    """
    ahead = talk_nll_BTPS.shape[-1]
    base_BTS = F.pad(base_nll_BT, (0, ahead - 1)).unfold(1, ahead, 1)
    return (base_BTS[:, :, None] - talk_nll_BTPS).sum(dim=-1).detach()


def advantages(reward_BTP: Tensor, *, keep_negative: bool) -> Tensor:
    """A_i = R_i - mean of R_i over the position's thoughts; a single thought keeps its reward."""
    if reward_BTP.shape[-1] > 1:
        reward_BTP = reward_BTP - reward_BTP.mean(dim=-1, keepdim=True)
    return reward_BTP if keep_negative else reward_BTP.clamp(min=0)


def policy_weights(
    reward_BTP: Tensor, real_BTS: Tensor, budget: int, objective: Objective
) -> Tensor:
    """The factor of -log p(t_j) in the policy loss, for all tokens of a thought, (B, T, P).

    advantage / number of positions, and / budget for the mean over tokens. The official mean runs
    over all positions, padding too, that lie at least one token further from the end than their
    rewards need. `real_BTS` is (B, T, S).
    """
    counted_BT = real_BTS.any(dim=-1)
    if objective.averaging == "nonzero":
        position_T = torch.arange(real_BTS.shape[1], device=real_BTS.device)
        counted_BT = (position_T < len(position_T) - real_BTS.shape[2]).expand_as(counted_BT)
    number = counted_BT.sum().clamp(min=1) * reward_BTP.shape[-1]
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
