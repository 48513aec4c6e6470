"""Sampling the thoughts of all positions at once, one token of every thought per pass.

Keys and values are kept, so each pass reads T·P tokens, and the text is not read again.

Shapes: B sequences, T text positions, P thoughts per position, K thought tokens, H hidden, V
vocabulary; N = B·T·P rows, in this order.
"""

import torch
from torch import Tensor

from quietstar_infer.sampling import mask_meta_tokens
from training.kernels.attention import GrowingPaths, Text
from training.kernels.cross_entropy import compute_dtype, logit_chunks
from training.thoughts.model import QuietThinker
from training.config import Preset
from training.thoughts.sampling import ChooseThoughts
from training.kernels.softmax import log_sum_exp, softmax_and_log_sum
from training.thoughts.outputs import Thoughts

# Stands for -inf where it is multiplied with a probability of 0.
_VERY_NEGATIVE = -1e9


@torch.no_grad()
def sample_thoughts(
    thinker: QuietThinker, text: Text, ids_BT: Tensor, preset: Preset, choose: ChooseThoughts
) -> Thoughts:
    """A thought of `budget` tokens for each of the thoughts of each position of a text that has
    been read.
    """
    budget, per_position = preset.thinking.budget, preset.thinking.per_position
    sequences, positions = ids_BT.shape
    thoughts = _empty_thoughts(ids_BT, preset)
    paths = GrowingPaths(text, positions, per_position, capacity=budget)
    # The thoughts of a position begin alike: START is read once for all of them.
    position_N = torch.arange(positions, device=ids_BT.device)
    embedding_BNH = thinker.start_H.expand(sequences, positions, -1)
    for step in range(budget):
        hidden_BNH = thinker.read(embedding_BNH, position_N[None] + 1 + step, thoughts=paths)
        paths.advance()
        if step == 0:
            hidden_BNH = hidden_BNH.repeat_interleave(per_position, dim=1)
            position_N = position_N.repeat_interleave(per_position)
        _choose_tokens(thinker, hidden_BNH.flatten(0, 1), step, preset, choose, thoughts)
        embedding_BNH = thinker.embed(thoughts.ids[..., step].flatten(1))
    return thoughts


def _empty_thoughts(ids_BT: Tensor, preset: Preset) -> Thoughts:
    shape = (*ids_BT.shape, preset.thinking.per_position, preset.thinking.budget)
    log_prob = torch.empty(shape, device=ids_BT.device)
    return Thoughts(ids_BT.new_empty(shape), log_prob, torch.empty_like(log_prob))


def _choose_tokens(
    thinker: QuietThinker,
    hidden_NH: Tensor,
    step: int,
    preset: Preset,
    choose: ChooseThoughts,
    thoughts: Thoughts,
) -> None:
    """Fill in the step-th token of every thought; draw and entropy share a softmax."""
    temperature = preset.objective.logprob_temperature
    ids_N, log_prob_N, entropy_N = (x.new_empty(len(hidden_NH)) for x in thoughts)
    weight_VH = thinker.lm_head_VH
    for rows, logits in logit_chunks(hidden_NH, weight_VH, compute_dtype(weight_VH)):
        mask_meta_tokens(logits, thinker.meta_token_ids)
        probability, log_sum = softmax_and_log_sum(logits)
        ids = choose(logits, probability, step, rows.start)
        logits[:, thinker.meta_token_ids] = _VERY_NEGATIVE
        # -Σ p log p = log Σ exp z - Σ p z
        entropy_N[rows] = log_sum - torch.linalg.vecdot(probability, logits)
        chosen_logit = logits.gather(1, ids[:, None]).squeeze(1)
        if temperature != 1:
            log_sum = log_sum_exp(logits, temperature)
        ids_N[rows], log_prob_N[rows] = ids, chosen_logit / temperature - log_sum
    for kept, x_N in zip(thoughts, (ids_N, log_prob_N, entropy_N), strict=True):
        kept[..., step] = x_N.view(kept.shape[:-1])
