"""One training step, fast and small: the same numbers as `training.thoughts.reference_step`.

- The text is read once for all its thoughts; keys and values are kept (`training.kernels.attention.Text`).
- Thoughts are sampled without gradients, with keys and values kept (`training.thoughts.rollout`).
- All paths are then read in one or several passes, with an attention that is linear in the path
  length (`training.kernels.attention`).
- The language-model head runs for sampling, for real targets and for thoughts that the policy loss
  weighs, and for nothing else; logits are never kept (`training.kernels.cross_entropy`).

Shapes: B sequences, T text positions, C consecutive ones of them, P thoughts per position, L path
tokens, K thought tokens, F = S - 1 true tokens read, S tokens ahead, H hidden; N rows picked out.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from quietstar_infer.mixing import mix
from training.kernels.attention import Text, WholePaths
from training.thoughts.batch import Ahead, Batch, look_ahead
from training.kernels.cross_entropy import score_function, token_cross_entropy
from training.kernels.malloc_trim import give_back
from training.thoughts.losses import likely_factors
from training.thoughts.model import QuietThinker
from training.config import Objective, Preset, Thinking
from training.thoughts.sampling import ChooseThoughts
from training.thoughts.outputs import StepOutput, Thoughts, TokenLosses, conclude
from training.thoughts.rollout import sample_thoughts


def fast_step(
    thinker: QuietThinker,
    batch: Batch,
    preset: Preset,
    choose: ChooseThoughts,
    *,
    passes: int = 1,
) -> StepOutput:
    """Think at every position, and the loss; raises `UsageError` (`check_window`).

    The trunk reads the paths in so many passes. Where layers compute activations again
    (`training.kernels.activation_checkpointing`), only those of one pass exist at a time.
    """
    thinking = preset.thinking
    thinker.check_window(batch, thinking.ahead)
    ahead = look_ahead(batch, thinking.ahead)
    text = Text(needs_grad=torch.is_grad_enabled())
    base_BTH = read_text(thinker, text, batch.input_ids_BT)
    thoughts = sample_thoughts(thinker, text, batch.input_ids_BT, preset, choose)
    following_BTPF = ahead.ids_BTS[:, :, None, :-1].expand(*thoughts.ids.shape[:3], -1)
    # One look-up for all passes: each would have a gradient of the size of the table.
    paths_BTPLH = thinker.embed_paths(thoughts.ids, following_BTPF)
    hidden_BTPLH = read_paths(thinker, text, paths_BTPLH, passes)
    thought_BTPKH = hidden_BTPLH[:, :, :, : thinking.budget]
    talk_BTPSH = hidden_BTPLH[:, :, :, thinking.budget + 1 :]
    return conclude(
        token_losses(thinker, base_BTH, talk_BTPSH, ahead, preset.objective),
        thoughts,
        ahead.real_BTS[:, :-1],
        preset.objective,
        lambda weight_BTP: policy_loss(
            thinker, thought_BTPKH, thoughts, weight_BTP, preset.objective
        ),
    )


def read_text(thinker: QuietThinker, text: Text, ids_BT: Tensor) -> Tensor:
    """The trunk's hidden states of the text, (B, T, H)."""
    position_1T = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
    return thinker.read(thinker.embed(ids_BT), position_1T, thoughts=text)


def passes_for(batch: Batch, thinking: Thinking, tokens_per_pass: int) -> int:
    """How many passes read all paths of a batch, at most so many tokens at a time or, where that is
    less, the paths of one position.
    """
    sequences, positions = batch.input_ids_BT.shape
    tokens = sequences * thinking.per_position * thinking.path_length
    return math.ceil(positions / max(1, tokens_per_pass // tokens))


def runs(positions: int, passes: int) -> Iterator[slice]:
    """So many runs of positions. Where the positions do not suffice, the last one comes again:
    processes that share out the weights must all make the same passes.
    """
    size = math.ceil(positions / passes)
    for number in range(passes):
        first = min(number * size, positions - 1)
        yield slice(first, min(first + size, positions))


def read_paths(thinker: QuietThinker, text: Text, paths_BTPLH: Tensor, passes: int) -> Tensor:
    """The trunk's hidden states of all paths, in the shape of their embeddings."""
    positions = paths_BTPLH.shape[1]
    read = []
    for run in runs(positions, passes):
        read.append(read_some_paths(thinker, text, paths_BTPLH[:, run], run.start))
        give_back(paths_BTPLH.device)
    return torch.cat(read, dim=1)[:, :positions]


def read_some_paths(thinker: QuietThinker, text: Text, paths_BCPLH: Tensor, first: int) -> Tensor:
    """The trunk's hidden states of the paths of the positions from `first` on."""
    positions, per_position, length = paths_BCPLH.shape[1:4]
    position_C11 = torch.arange(first, first + positions)[:, None, None]
    position_CPL = (position_C11 + torch.arange(1, length + 1)).expand(-1, per_position, -1)
    hidden_BNH = thinker.read(
        paths_BCPLH.flatten(1, 3),
        position_CPL.reshape(1, -1).to(paths_BCPLH.device),
        thoughts=WholePaths(text, first, first + positions, per_position),
    )
    return hidden_BNH.view(paths_BCPLH.shape)


def token_losses(
    thinker: QuietThinker,
    base_BTH: Tensor,
    thought_BTPSH: Tensor,
    ahead: Ahead,
    objective: Objective,
) -> TokenLosses:
    """Losses of base and mixed predictions where there is a target, and mixing weights.

    The base that is mixed into the s-th prediction of position i is that of position i + s.
    """
    real_BTS, ids_BTS = ahead.real_BTS[:, :-1], ahead.ids_BTS
    per_position = thought_BTPSH.shape[2]
    first = real_BTS[..., 0].nonzero(as_tuple=True)
    b, i, p, s = real_BTS[:, :, None].expand(-1, -1, per_position, -1).nonzero(as_tuple=True)
    base_NH, thought_NH = base_BTH[b, i + s], thought_BTPSH[b, i, p, s]
    weight_N1 = thinker.mixing_head.weight(base_NH, thought_NH)
    base_factor, talk_factor_S = likely_factors(real_BTS, per_position, objective)
    # One call: each would have a gradient of the size of the head.
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
    thoughts: Thoughts,
    weight_BTP: Tensor,
    objective: Objective,
) -> Tensor:
    """Σ -weight · log p(t_j) over the thoughts that have a weight.

    The values are those of sampling, so that only the gradient takes another look at the logits;
    an objective without policy loss has none.
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
