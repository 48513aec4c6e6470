"""What a training step returns, and how token losses become the loss (paper, section 4.4).

Shapes: B sequences, T text positions, P thoughts per position, K thought tokens, S tokens ahead;
position i of T - 1 predicts from x_0 … x_i.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from training.config import Objective
from training.thoughts.losses import (
    StepTotals,
    likelihood_mean,
    policy_weights,
    rewards,
    talk_losses,
    total_loss,
)


class SampledThoughts(NamedTuple):
    """Sampled thoughts and the log-probabilities of their tokens, (B, T, P, K) each.

    `log_prob` is taken at the objective's temperature, `entropy` (nats) at temperature 1. No
    gradients.
    """

    ids: Tensor
    log_prob: Tensor
    entropy: Tensor


class TokenLosses(NamedTuple):
    """Losses in nats, (B, T-1) and (B, T-1, P, S), and mixing weights; 0 without a target."""

    base_nll_BT: Tensor
    talk_nll_BTPS: Tensor
    mixing_weight_BTPS: Tensor


class StepOutput(NamedTuple):
    """`loss` carries the graph; everything else is detached.

    `reward_BTP` (B, T-1, P) is the gain in log-likelihood of the tokens ahead, in nats; `real_BTS`
    (B, T-1, S) is True where there is a target.
    """

    loss: Tensor
    base_loss: Tensor
    talk_loss_S: Tensor
    policy_loss: Tensor
    reward_BTP: Tensor
    real_BTS: Tensor
    tokens: TokenLosses
    thoughts: SampledThoughts


def step_output(
    tokens: TokenLosses,
    thoughts: SampledThoughts,
    real_BTS: Tensor,
    objective: Objective,
    policy_loss_of: Callable[[Tensor], Tensor],
    totals: StepTotals | None = None,
) -> StepOutput:
    """From token losses to the loss, or to a batch's part of it in a step of several (`totals`).

    `policy_loss_of` is given the weight of every thought, (B, T-1, P), and returns
    Σ -weight · log p(t_j) over all thoughts and their tokens, with gradients.
    """
    averaging, number = objective.averaging, None if totals is None else totals.targets_S[0]
    base_loss = likelihood_mean(tokens.base_nll_BT, real_BTS[..., 0], averaging, number)
    talk_loss_S = talk_losses(tokens.talk_nll_BTPS, real_BTS, averaging, totals)
    reward_BTP = rewards(tokens.base_nll_BT, tokens.talk_nll_BTPS, real_BTS)
    budget = thoughts.ids.shape[-1]
    weight_BTP = policy_weights(reward_BTP, real_BTS, budget, objective, totals)
    policy_loss = policy_loss_of(weight_BTP)
    return StepOutput(
        total_loss(base_loss, talk_loss_S, policy_loss, objective),
        base_loss.detach(),
        talk_loss_S.detach(),
        policy_loss.detach(),
        reward_BTP,
        real_BTS,
        TokenLosses(*(x.detach() for x in tokens)),
        thoughts,
    )
