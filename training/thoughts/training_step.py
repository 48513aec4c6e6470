"""One training step of Quiet-STaR, from a batch to its loss (paper, section 4; algorithm 1).

It reads from top to bottom: think at every position, run the base model over the thoughts' paths,
mix, and compute the loss. `training.thoughts.reference_step` is its slow and simple twin, which
computes the same numbers.

Shapes: B sequences, T text positions, C consecutive ones of them, P thoughts per position, L path
tokens, b thought tokens (K), F = S - 1 true tokens fed, S tokens ahead, H hidden; N rows picked
out.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from quietstar_infer.mixing import mix
from training.config import Objective, Preset, Thinking
from training.kernels.cross_entropy import score_function, token_cross_entropy
from training.kernels.malloc_trim import return_freed_memory
from training.kernels.thought_attention import TextAttention, WholePathAttention
from training.thoughts.batch import Ahead, Batch, look_ahead
from training.thoughts.losses import StepTotals, later_losses, likely_factors
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import SampledThoughts, StepOutput, TokenLosses, step_output
from training.thoughts.rollout import sample_thoughts
from training.thoughts.sampling import ChooseThoughts


def training_step(
    thinker: QuietThinker,
    batch: Batch,
    preset: Preset,
    choose: ChooseThoughts,
    *,
    passes: int = 1,
    totals: StepTotals | None = None,
) -> StepOutput:
    """Think at every position of a batch, and the loss; raises `UsageError` (`check_window`).

    `totals` are those of the whole step, where it consists of several batches: the loss is then
    this batch's part of it.

    The base model runs over the paths in `passes` passes. With activation checkpointing
    (`training.kernels.activation_checkpointing`), recomputed activations are those of one pass.
    """
    thinking, objective = preset.thinking, preset.objective
    thinker.check_window(batch, thinking.ahead)
    ahead = look_ahead(batch, thinking.ahead)

    # The text x_0 … x_T-1, once for all thoughts; its keys and values are kept.
    text = TextAttention(
        needs_grad=torch.is_grad_enabled(), document_start_BT=batch.document_start_BT
    )
    base_BTH = thinker.text_states(text, batch.input_ids_BT)
    if not preset.thinks:
        return step_without_thoughts(thinker, base_BTH, ahead, preset, totals)

    # t_k ~ p(· | x_0 … x_i, START, t_1 … t_k-1) for every position i, without gradients.
    thoughts = sample_thoughts(thinker, text, batch.input_ids_BT, preset, choose)

    # START, t_1 … t_b, END, x_i+1 … x_i+S-1, with gradients.
    following_BTPF = ahead.ids_BTS[:, :, None, :-1].expand(*thoughts.ids.shape[:3], -1)
    # One look-up for all passes: each would have a gradient of the size of the table.
    paths_BTPLH = thinker.embed_paths(thoughts.ids, following_BTPF)
    hidden_BTPLH = path_states(thinker, text, paths_BTPLH, passes)
    # START and t_1 … t_b-1 predict the thought tokens; END, x_i+1 … predict the true tokens.
    thought_BTPKH = hidden_BTPLH[:, :, :, : thinking.budget]
    talk_BTPSH = hidden_BTPLH[:, :, :, thinking.budget + 1 :]

    # NLL of x_i+1+s from h = (1 - w)·h_base + w·h_thought; then rewards and the policy loss.
    return step_output(
        token_losses(thinker, base_BTH, talk_BTPSH, ahead, objective, totals),
        thoughts,
        ahead.real_BTS[:, :-1],
        objective,
        lambda weight_BTP: policy_loss(thinker, thought_BTPKH, thoughts, weight_BTP, objective),
        totals,
    )


def step_without_thoughts(
    thinker: QuietThinker,
    base_BTH: Tensor,
    ahead: Ahead,
    preset: Preset,
    totals: StepTotals | None = None,
) -> StepOutput:
    """The loss where no thought can have a part in it: mixed predictions are the base's."""
    objective, per_position = preset.objective, preset.thinking.per_position
    real_BTS, ids_BTS = ahead.real_BTS[:, :-1], ahead.ids_BTS
    first = real_BTS[..., 0].nonzero(as_tuple=True)
    base_factor, _ = likely_factors(real_BTS, per_position, objective, totals)
    nll_N = token_cross_entropy(
        base_BTH[first],
        thinker.lm_head_VH,
        ids_BTS[..., 0][first],
        base_factor.expand(len(first[0])),
    )
    zeros_BTS = torch.zeros(real_BTS.shape, device=real_BTS.device)
    base_BT = zeros_BTS[..., 0].index_put(first, nll_N)
    mixed_BTS = later_losses(base_BT.detach(), real_BTS)
    mixed_BTPS = mixed_BTS[:, :, None].expand(-1, -1, per_position, -1)
    ids_BTPK = ids_BTS.new_empty((*ids_BTS.shape[:2], per_position, 0))
    nothing_BTPK = zeros_BTS.new_empty(ids_BTPK.shape)
    return step_output(
        TokenLosses(base_BT, mixed_BTPS, torch.zeros_like(mixed_BTPS)),
        SampledThoughts(ids_BTPK, nothing_BTPK, nothing_BTPK),
        real_BTS,
        objective,
        lambda weight_BTP: weight_BTP.new_zeros(()),
        totals,
    )


def path_states(
    thinker: QuietThinker, text: TextAttention, paths_BTPLH: Tensor, passes: int
) -> Tensor:
    """The base model's hidden states of all paths, in the shape of their embeddings."""
    positions = paths_BTPLH.shape[1]
    states = []
    for run in position_runs(positions, passes):
        states.append(_run_states(thinker, text, paths_BTPLH[:, run], run.start))
        return_freed_memory(paths_BTPLH.device)
    return torch.cat(states, dim=1)[:, :positions]


def _run_states(
    thinker: QuietThinker, text: TextAttention, paths_BCPLH: Tensor, first: int
) -> Tensor:
    """The same for the paths of the positions from `first` on: token l has position i + 1 + l."""
    positions, per_position, length = paths_BCPLH.shape[1:4]
    position_BC = text.positions(first, first + positions, paths_BCPLH.device)
    step_L = torch.arange(1, length + 1, device=paths_BCPLH.device)
    position_BCPL = (position_BC[..., None, None] + step_L).expand(-1, -1, per_position, -1)
    hidden_BNH = thinker.hidden_states(
        paths_BCPLH.flatten(1, 3),
        position_BCPL.flatten(1),
        thought_attention=WholePathAttention(text, first, first + positions, per_position),
    )
    return hidden_BNH.view(paths_BCPLH.shape)


def position_runs(positions: int, passes: int) -> Iterator[slice]:
    """`passes` runs of positions. Where there are fewer positions, the last one is repeated:
    processes that share the weights must all make the same number of passes.
    """
    size = math.ceil(positions / passes)
    for number in range(passes):
        first = min(number * size, positions - 1)
        yield slice(first, min(first + size, positions))


def passes_for(batch: Batch, thinking: Thinking, tokens_per_pass: int) -> int:
    """The passes for all paths of a batch, of at most `tokens_per_pass` path tokens each or, where
    that is more, of the paths of one position.
    """
    sequences, positions = batch.input_ids_BT.shape
    tokens = sequences * thinking.per_position * thinking.path_length
    return math.ceil(positions / max(1, tokens_per_pass // tokens))


def token_losses(
    thinker: QuietThinker,
    base_BTH: Tensor,
    thought_BTPSH: Tensor,
    ahead: Ahead,
    objective: Objective,
    totals: StepTotals | None = None,
) -> TokenLosses:
    """NLL of base and mixed predictions where there is a target, and mixing weights.

    The s-th prediction of position i mixes in the base hidden state of position i + s:
    h = (1 - w)·base_i+s + w·thought_i,s, with w = mixing_head([base_i+s; thought_i,s]).
    """
    real_BTS, ids_BTS = ahead.real_BTS[:, :-1], ahead.ids_BTS
    per_position = thought_BTPSH.shape[2]
    first = real_BTS[..., 0].nonzero(as_tuple=True)
    b, i, p, s = real_BTS[:, :, None].expand(-1, -1, per_position, -1).nonzero(as_tuple=True)
    base_NH, thought_NH = base_BTH[b, i + s], thought_BTPSH[b, i, p, s]
    weight_N1 = thinker.mixing_head.weight(base_NH, thought_NH)
    base_factor, talk_factor_S = likely_factors(real_BTS, per_position, objective, totals)
    # One call: each would have a gradient of the size of the language-model head.
    nll_N = token_cross_entropy(
        torch.cat([base_BTH[first], mix(base_NH, thought_NH, weight_N1)]),
        thinker.lm_head_VH,
        torch.cat([ids_BTS[..., 0][first], ids_BTS[b, i, s]]),
        torch.cat([base_factor.expand(len(first[0])), talk_factor_S[s]]),
    )
    base_nll_N, talk_nll_N = nll_N.split([len(first[0]), len(b)])
    zeros_BTS = torch.zeros(real_BTS.shape, device=real_BTS.device)
    zeros_BTPS = zeros_BTS[:, :, None].expand(-1, -1, per_position, -1)
    return TokenLosses(
        zeros_BTS[..., 0].index_put(first, base_nll_N),
        zeros_BTPS.index_put((b, i, p, s), talk_nll_N),
        zeros_BTPS.index_put((b, i, p, s), weight_N1[:, 0].float()),
    )


def policy_loss(
    thinker: QuietThinker,
    thought_BTPKH: Tensor,
    thoughts: SampledThoughts,
    weight_BTP: Tensor,
    objective: Objective,
) -> Tensor:
    """REINFORCE: Σ -weight · log p(t_j) over the thoughts whose weight is not 0.

    The values are those of sampling, so that only the gradient computes the logits again; an
    objective without policy loss has no gradient.
    """
    if not objective.policy_weight:
        return -(weight_BTP * thoughts.log_prob[:, :-1].sum(dim=-1)).sum()
    b, i, p = weight_BTP.nonzero(as_tuple=True)
    nll_N = score_function(
        thought_BTPKH[b, i, p].flatten(0, 1),
        thinker.lm_head_VH,
        thoughts.ids[b, i, p].flatten(),
        -thoughts.log_prob[b, i, p].flatten(),
        objective.logprob_temperature,
        thinker.meta_token_ids,
    )
    return (weight_BTP[b, i, p, None] * nll_N.view(len(b), thoughts.ids.shape[-1])).sum()
