"""One training step, fast and small: the same numbers as `training.dense`.

- The text is read once for all its thoughts; keys and values are kept (`training.attention.Text`).
- Thoughts are sampled without gradients, with keys and values kept (`training.thoughts`).
- All paths are then read in one pass, or those of some positions at a time, with an attention that
  is linear in the path length (`training.attention`).
- The language-model head runs for sampling, for real targets and for thoughts that the policy loss
  weighs, and for nothing else; logits are never kept (`training.cross_entropy`).

Shapes: B sequences, T text positions, C consecutive ones of them, P thoughts per position, L path
tokens, K thought tokens, F = S - 1 true tokens read, S tokens ahead, H hidden; N rows picked out.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from quietstar_infer.mixing import mix
from training.attention import Text, WholePaths
from training.batch import Ahead, Batch, look_ahead
from training.cross_entropy import score_function, token_cross_entropy
from training.losses import likely_factors
from training.model import QuietThinker
from training.presets import Objective, Preset
from training.sampling import ChooseThoughts
from training.step import StepOutput, Thoughts, TokenLosses, conclude
from training.thoughts import sample_thoughts


def fast_step(
    thinker: QuietThinker,
    batch: Batch,
    preset: Preset,
    choose: ChooseThoughts,
    *,
    tokens_per_pass: int | None = None,
) -> StepOutput:
    """Think at every position, and the loss; raises `UsageError` (`check_window`).

    `tokens_per_pass` is how many path tokens the trunk reads at a time; None is all. Together with
    the trunk's gradient checkpointing, a few thousand keep what a layer needs for itself small.
    """
    thinking = preset.thinking
    thinker.check_window(batch, thinking.ahead)
    ahead = look_ahead(batch, thinking.ahead)
    text = Text(needs_grad=torch.is_grad_enabled())
    base_BTH = read_text(thinker, text, batch.input_ids_BT)
    thoughts = sample_thoughts(thinker, text, batch.input_ids_BT, preset, choose)
    path_BTPLH = torch.cat(
        [
            read_paths(thinker, text, thoughts.ids, ahead.ids_BTS[..., :-1], positions)
            for positions in runs(thoughts, thinking.path_length, tokens_per_pass)
        ],
        dim=1,
    )
    thought_BTPKH = path_BTPLH[:, :, :, : thinking.budget]
    talk_BTPSH = path_BTPLH[:, :, :, thinking.budget + 1 :]
    return conclude(
        token_losses(thinker, base_BTH, talk_BTPSH, ahead, preset.objective),
        thoughts,
        ahead.real_BTS[:, :-1],
        preset.objective,
        lambda weight_BTP: policy_loss(
            thinker, thought_BTPKH, thoughts, weight_BTP, preset.objective.logprob_temperature
        ),
    )


def read_text(thinker: QuietThinker, text: Text, ids_BT: Tensor) -> Tensor:
    """The trunk's hidden states of the text, (B, T, H)."""
    position_1T = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
    return thinker.read(thinker.embed(ids_BT), position_1T, thoughts=text)


def runs(thoughts: Thoughts, path_length: int, tokens_per_pass: int | None) -> Iterator[slice]:
    """Positions in runs whose paths have at most so many tokens, at least one position each."""
    sequences, positions, per_position, _ = thoughts.ids.shape
    size = positions
    if tokens_per_pass is not None:
        size = max(1, tokens_per_pass // (sequences * per_position * path_length))
    for first in range(0, positions, size):
        yield slice(first, min(first + size, positions))


def read_paths(
    thinker: QuietThinker,
    text: Text,
    thought_ids_BTPK: Tensor,
    following_BTF: Tensor,
    positions: slice,
) -> Tensor:
    """The trunk's hidden states of the paths of some positions, (B, C, P, L, H)."""
    thought_ids_BCPK = thought_ids_BTPK[:, positions]
    following_BCPF = following_BTF[:, positions, None].expand(*thought_ids_BCPK.shape[:3], -1)
    paths_BCPLH = thinker.embed_paths(thought_ids_BCPK, following_BCPF)
    per_position, length = paths_BCPLH.shape[2:4]
    position_CL = torch.arange(positions.start, positions.stop)[:, None] + torch.arange(
        1, length + 1
    )
    position_CPL = position_CL[:, None].expand(-1, per_position, -1)
    hidden_BNH = thinker.read(
        paths_BCPLH.flatten(1, 3),
        position_CPL.reshape(1, -1).to(paths_BCPLH.device),
        thoughts=WholePaths(text, positions.start, positions.stop, per_position),
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
    temperature: float,
) -> Tensor:
    """Σ -weight · log p(t_j) over the thoughts that have a weight.

    The values are those of sampling, so that only the gradient takes another look at the logits.
    """
    b, i, p = weight_BTP.nonzero(as_tuple=True)
    nll_N = score_function(
        thought_BTPKH[b, i, p].flatten(0, 1),
        thinker.lm_head_VH,
        thoughts.ids[b, i, p].flatten(),
        -thoughts.log_prob[b, i, p].flatten(),
        temperature,
        thinker.meta_token_ids,
    )
    return (weight_BTP[b, i, p, None] * nll_N.view(len(b), thoughts.ids.shape[-1])).sum()
