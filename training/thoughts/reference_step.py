"""One training step, slow and simple: a dense mask over all thoughts, as in the paper's figure 3.

Every sequence is repeated once per thought, every token's logits are computed, and the base model
runs over the text and all thoughts again for every thought token.
`training.thoughts.training_step` computes the same numbers.

Shapes: B sequences, P thoughts per position, R = B·P rows (row r = b·P + p), T text positions,
L tokens of a thought's path, N = T + T·L, K thought tokens, S tokens ahead, H hidden, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from quietstar_infer.mixing import mix
from quietstar_infer.sampling import mask_meta_tokens
from training.config import Preset
from training.thoughts.batch import IGNORED, Ahead, Batch, look_ahead
from training.thoughts.layout import PathLayout, may_see, position_ids
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import SampledThoughts, StepOutput, TokenLosses, step_output
from training.thoughts.sampling import ChooseThoughts


def reference_step(
    thinker: QuietThinker, batch: Batch, preset: Preset, choose: ChooseThoughts
) -> StepOutput:
    """Think at every position of a batch, and the loss; raises `UsageError` (`check_window`)."""
    thinking = preset.thinking
    thinker.check_window(batch, thinking.ahead)
    ahead = look_ahead(batch, thinking.ahead)
    ids_RT = batch.input_ids_BT.repeat_interleave(thinking.per_position, dim=0)
    start_RT = batch.document_start_BT
    if start_RT is not None:
        start_RT = start_RT.repeat_interleave(thinking.per_position, dim=0)
    following_RTS = ahead.ids_BTS.repeat_interleave(thinking.per_position, dim=0)

    thought_ids_RTK = _sample(thinker, ids_RT, start_RT, preset, choose)
    paths_RTLH = thinker.embed_paths(thought_ids_RTK, following_RTS[..., :-1])
    base_RTH, path_RTLH = _hidden_states(thinker, thinker.embed(ids_RT), paths_RTLH, start_RT)
    thought_RTKH, talk_RTSH = (
        path_RTLH[:, :, : thinking.budget],
        path_RTLH[:, :, thinking.budget + 1 :],
    )
    log_prob_RTK, entropy_RTK = _action_log_probs(
        thinker, thought_RTKH, thought_ids_RTK, preset.objective.logprob_temperature
    )
    tokens = _token_losses(thinker, base_RTH, talk_RTSH, ahead, thinking.per_position)

    rows = thinking.per_position
    log_prob_BTPK = _by_position(log_prob_RTK, rows)
    thoughts = SampledThoughts(
        _by_position(thought_ids_RTK, rows),
        log_prob_BTPK.detach(),
        _by_position(entropy_RTK, rows),
    )
    return step_output(
        tokens,
        thoughts,
        ahead.real_BTS[:, :-1],
        preset.objective,
        lambda weight_BTP: -(weight_BTP * log_prob_BTPK[:, :-1].sum(dim=-1)).sum(),
    )


def _by_position(x_RT: Tensor, per_position: int) -> Tensor:
    """(R, T, …) to (B, T, P, …)."""
    x_BPT: Tensor = x_RT.unflatten(0, (-1, per_position))
    return x_BPT.movedim(1, 2)


@torch.no_grad()
def _sample(
    thinker: QuietThinker,
    ids_RT: Tensor,
    start_RT: Tensor | None,
    preset: Preset,
    choose: ChooseThoughts,
) -> Tensor:
    """Thoughts for every position of every row, (R, T, K), token by token."""
    rows, positions = ids_RT.shape
    text_RTH = thinker.embed(ids_RT)
    start_RT1H = thinker.start_H.expand(rows, positions, 1, -1)
    thought_RTK = ids_RT.new_empty((rows, positions, 0))
    for step in range(preset.thinking.budget):
        paths_RTLH = torch.cat([start_RT1H, thinker.embed(thought_RTK)], dim=2)
        _, path_RTLH = _hidden_states(thinker, text_RTH, paths_RTLH, start_RT)
        logits_RTV = _thought_logits(thinker, path_RTLH[:, :, -1])
        logits_BTPV = _by_position(logits_RTV, preset.thinking.per_position)
        logits_NV = logits_BTPV.flatten(0, 2).float()
        chosen_N = choose(logits_NV, logits_NV.softmax(dim=-1), step, 0)
        chosen_RT = chosen_N.view(*logits_BTPV.shape[:3]).movedim(2, 1).flatten(0, 1)
        thought_RTK = torch.cat([thought_RTK, chosen_RT[..., None]], dim=2)
    return thought_RTK


def _hidden_states(
    thinker: QuietThinker, text_RTH: Tensor, paths_RTLH: Tensor, start_RT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The base model's hidden states of text (R, T, H) and paths (R, T, L, H)."""
    rows, positions, length, _ = paths_RTLH.shape
    layout = PathLayout(positions, 1, length)
    index_N = torch.arange(layout.tokens, device=text_RTH.device)
    mask_RNN = may_see(layout, index_N[:, None], index_N[None, :]).expand(rows, -1, -1)
    position_RN = position_ids(layout, text_RTH.device)
    if start_RT is not None:
        start_RN = torch.cat([start_RT, start_RT.repeat_interleave(length, dim=1)], dim=1)
        mask_RNN = mask_RNN & ((index_N >= positions) | (index_N >= start_RN[..., None]))
        position_RN = position_RN - start_RN
    hidden_RNH = thinker.hidden_states(
        torch.cat([text_RTH, paths_RTLH.flatten(1, 2)], dim=1),
        position_RN,
        attention_mask=mask_RNN[:, None],
    )
    text, paths = hidden_RNH[:, :positions], hidden_RNH[:, positions:]
    return text, paths.unflatten(1, (positions, length))


def _thought_logits(thinker: QuietThinker, hidden: Tensor) -> Tensor:
    """Logits (…, V) of thought tokens, START's and END's at -inf."""
    logits: Tensor = hidden @ thinker.lm_head_VH.T
    return mask_meta_tokens(logits, thinker.meta_token_ids)


def _action_log_probs(
    thinker: QuietThinker, hidden_RTKH: Tensor, thought_ids_RTK: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log p of every thought token at a temperature, and the entropy at temperature 1 (no grad)."""
    logits_RTKV = _thought_logits(thinker, hidden_RTKH)
    log_prob_RTKV = (logits_RTKV / temperature).log_softmax(dim=-1)
    log_prob_RTK = log_prob_RTKV.gather(-1, thought_ids_RTK[..., None]).squeeze(-1)
    plain_RTKV = logits_RTKV.detach().log_softmax(dim=-1)
    return log_prob_RTK, -torch.xlogy(plain_RTKV.exp(), plain_RTKV.exp()).sum(dim=-1)


def _token_losses(
    thinker: QuietThinker, base_RTH: Tensor, thought_RTSH: Tensor, ahead: Ahead, per_position: int
) -> TokenLosses:
    """NLL of base and mixed predictions, and mixing weights.

    The s-th prediction of position i mixes in the base hidden state of position i + s.
    """
    targets_BTS = ahead.ids_BTS.masked_fill(~ahead.real_BTS, IGNORED)
    targets_RTS = targets_BTS.repeat_interleave(per_position, dim=0)
    base_nll_RT = _cross_entropy(thinker, base_RTH, targets_RTS[..., 0])
    talk_nll, mixing_weights = [], []
    for s in range(thought_RTSH.shape[2]):
        rolled_RTH = base_RTH.roll(-s, dims=1)
        weight_RT1 = thinker.mixing_head.weight(rolled_RTH, thought_RTSH[:, :, s])
        mixed_RTH = mix(rolled_RTH, thought_RTSH[:, :, s], weight_RT1)
        talk_nll.append(_cross_entropy(thinker, mixed_RTH, targets_RTS[..., s]))
        mixing_weights.append(weight_RT1[:, :-1, 0] * (targets_RTS[:, :-1, s] != IGNORED))
    return TokenLosses(
        base_nll_RT[::per_position],
        _by_position(torch.stack(talk_nll, dim=-1), per_position),
        _by_position(torch.stack(mixing_weights, dim=-1), per_position),
    )


def _cross_entropy(thinker: QuietThinker, hidden_RTH: Tensor, targets_RT: Tensor) -> Tensor:
    """The loss of every position but the last, (R, T-1); 0 where the target is ignored."""
    logits_RTV = hidden_RTH[:, :-1] @ thinker.lm_head_VH.T
    nll_N = F.cross_entropy(
        logits_RTV.flatten(0, 1),
        targets_RT[:, :-1].flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return nll_N.view(logits_RTV.shape[:2])
