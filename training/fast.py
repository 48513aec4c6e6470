"""One training step, fast and small: the same numbers as `training.dense`.

- Thoughts are sampled without gradients and with kept keys and values (`training.thoughts`).
- Text and all paths are then read in one pass, the text once for all thoughts; the attention is
  linear in the path length (`training.attention`).
- The language-model head runs for real targets and for thoughts that the policy loss weighs, and
  for nothing else; logits are never kept (`training.cross_entropy`).

Shapes: B sequences, T text positions, P thoughts per position, L path tokens, K thought tokens,
S tokens ahead, H hidden; N rows picked out of them.
"""

import torch
from torch import Tensor

from quietstar_infer.mixing import mix
from training.attention import WholePaths
from training.batch import Ahead, Batch, look_ahead
from training.cross_entropy import token_cross_entropy
from training.layout import Layout, position_ids
from training.model import QuietThinker
from training.presets import Preset
from training.sampling import ChooseThoughts
from training.step import StepOutput, Thoughts, TokenLosses, conclude
from training.thoughts import sample_thoughts


def fast_step(
    thinker: QuietThinker, batch: Batch, preset: Preset, choose: ChooseThoughts
) -> StepOutput:
    """Think at every position, and the loss; raises `UsageError` (`check_window`)."""
    thinking = preset.thinking
    thinker.check_window(batch, thinking.ahead)
    ahead = look_ahead(batch, thinking.ahead)
    thoughts = sample_thoughts(thinker, batch.input_ids_BT, preset, choose)
    base_BTH, path_BTPLH = read(thinker, batch.input_ids_BT, thoughts.ids, ahead.ids_BTS[..., :-1])
    thought_BTPKH = path_BTPLH[:, :, :, : thinking.budget]
    talk_BTPSH = path_BTPLH[:, :, :, thinking.budget + 1 :]
    return conclude(
        token_losses(thinker, base_BTH, talk_BTPSH, ahead),
        thoughts,
        ahead.real_BTS[:, :-1],
        preset.objective,
        lambda weight_BTP: policy_loss(
            thinker, thought_BTPKH, thoughts, weight_BTP, preset.objective.logprob_temperature
        ),
    )


def read(
    thinker: QuietThinker, ids_BT: Tensor, thought_ids_BTPK: Tensor, following_BTF: Tensor
) -> tuple[Tensor, Tensor]:
    """The trunk's hidden states of text (B, T, H) and paths (B, T, P, L, H)."""
    following_BTPF = following_BTF[:, :, None].expand(*thought_ids_BTPK.shape[:3], -1)
    paths_BTPLH = thinker.embed_paths(thought_ids_BTPK, following_BTPF)
    layout = Layout(*paths_BTPLH.shape[1:4])
    hidden_BNH = thinker.read(
        torch.cat([thinker.embed(ids_BT), paths_BTPLH.flatten(1, 3)], dim=1),
        position_ids(layout, ids_BT.device),
        thoughts=WholePaths(layout),
    )
    text, paths = hidden_BNH[:, : layout.positions], hidden_BNH[:, layout.positions :]
    return text, paths.unflatten(1, layout)


def token_losses(
    thinker: QuietThinker, base_BTH: Tensor, thought_BTPSH: Tensor, ahead: Ahead
) -> TokenLosses:
    """Losses of base and mixed predictions where there is a target, and mixing weights.

    The base that is mixed into the s-th prediction of position i is that of position i + s.
    """
    sequences, positions, per_position, steps, _ = thought_BTPSH.shape
    first_BT = ahead.real_BTS[:, :-1, 0]
    base_nll_BT = base_BTH.new_zeros(first_BT.shape, dtype=torch.float32)
    base_nll_BT[first_BT] = token_cross_entropy(
        base_BTH[:, :-1][first_BT], thinker.lm_head_VH, ahead.ids_BTS[:, :-1, 0][first_BT]
    )
    b, i, p, s = (
        ahead.real_BTS[:, :-1, None].expand(-1, -1, per_position, -1).nonzero(as_tuple=True)
    )
    base_NH, thought_NH = base_BTH[b, i + s], thought_BTPSH[b, i, p, s]
    weight_N1 = thinker.mixing_head.weight(base_NH, thought_NH)
    talk_nll_N = token_cross_entropy(
        mix(base_NH, thought_NH, weight_N1), thinker.lm_head_VH, ahead.ids_BTS[b, i, s]
    )
    zeros_BTPS = base_nll_BT.new_zeros((sequences, positions - 1, per_position, steps))
    return TokenLosses(
        base_nll_BT,
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
    """Σ -weight · log p(t_j) over the thoughts that have a weight."""
    b, i, p = weight_BTP.nonzero(as_tuple=True)
    nll_N = token_cross_entropy(
        thought_BTPKH[b, i, p].flatten(0, 1),
        thinker.lm_head_VH,
        thoughts.ids[b, i, p].flatten(),
        temperature,
        banned=thinker.meta_token_ids,
    )
    return (weight_BTP[b, i, p, None] * nll_N.view(len(b), thoughts.ids.shape[-1])).sum()
