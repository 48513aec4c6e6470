"""Samples the thoughts of all positions of a text, with their log-probabilities and entropies.

Keys and values are kept, so each pass feeds one token of T·P thoughts, and the base model does not
run over the text again.

Shapes: B sequences, T text positions, P thoughts per position, K thought tokens, H hidden, V
vocabulary; N = B·T·P rows, in this order.
"""

import torch
from torch import Tensor

from training.config import Preset
from training.kernels.softmax import log_sum_exp, softmax_and_log_sum
from training.kernels.thought_attention import TextAttention
from training.thoughts.decode import ThoughtDecoder
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import SampledThoughts
from training.thoughts.sampling import ChooseThoughts

# Stands for -inf where it is multiplied with a probability of 0.
_VERY_NEGATIVE = -1e9


@torch.no_grad()
def sample_thoughts(
    thinker: QuietThinker,
    text: TextAttention,
    ids_BT: Tensor,
    preset: Preset,
    choose: ChooseThoughts,
) -> SampledThoughts:
    """`per_position` thoughts of `budget` tokens at each position of a text over which the base
    model has run.
    """
    budget, per_position = preset.thinking.budget, preset.thinking.per_position
    sequences, positions = ids_BT.shape
    thoughts = _empty_thoughts(ids_BT, preset)
    decoder = ThoughtDecoder(
        thinker, text, sequences, range(positions), capacity=budget, per_position=per_position
    )
    for step in range(budget):
        last_N = thoughts.ids[..., step - 1].flatten()
        hidden_NH = decoder.append(last_N) if step else decoder.start()
        _sample_tokens(thinker, hidden_NH, step, preset, choose, thoughts)
    return thoughts


def _empty_thoughts(ids_BT: Tensor, preset: Preset) -> SampledThoughts:
    shape = (*ids_BT.shape, preset.thinking.per_position, preset.thinking.budget)
    log_prob = torch.empty(shape, device=ids_BT.device)
    return SampledThoughts(ids_BT.new_empty(shape), log_prob, torch.empty_like(log_prob))


def _sample_tokens(
    thinker: QuietThinker,
    hidden_NH: Tensor,
    step: int,
    preset: Preset,
    choose: ChooseThoughts,
    thoughts: SampledThoughts,
) -> None:
    """Fill in the step-th token of every thought; sampling and entropy share a softmax."""
    temperature = preset.objective.logprob_temperature
    ids_N, log_prob_N, entropy_N = (x.new_empty(len(hidden_NH)) for x in thoughts)
    for rows, logits in thinker.logits(hidden_NH):
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
