"""How thought tokens are drawn in training.

Shapes: N rows, V vocabulary, K blocks of J of its entries.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

ChooseThoughts = Callable[[Tensor, Tensor, int, int], Tensor]
"""(logits_NV with START and END at -inf, their softmax, step k, number of the first row) to token
ids (N,). Whoever asks has use for the softmax, too.

Rows are numbered sequence by sequence, position by position, thought by thought."""


def recorded_noise(noise_KNV: Tensor) -> ChooseThoughts:
    """argmax(logits + noise): draws that can be repeated, from noise (K steps, N rows, V)."""

    def choose(logits_NV: Tensor, _: Tensor, step: int, first_row: int) -> Tensor:
        rows = slice(first_row, first_row + len(logits_NV))
        return (logits_NV + noise_KNV[step, rows]).argmax(dim=-1)

    return choose


def draw(temperature: float = 1.0, generator: torch.Generator | None = None) -> ChooseThoughts:
    """An exact draw from softmax(logits / temperature), by one uniform number per row.

    Gumbel noise would take one per vocabulary entry: on a CPU more work than the language-model
    head.
    """

    def choose(logits_NV: Tensor, probability_NV: Tensor, step: int, first_row: int) -> Tensor:
        uniform_N = torch.rand(len(logits_NV), generator=generator, device=logits_NV.device)
        return invert(tempered(logits_NV, probability_NV, temperature), 1 - uniform_N)

    return choose


def tempered(logits_NV: Tensor, probability_NV: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature), from logits and their softmax."""
    if temperature == 1:
        return probability_NV
    return (logits_NV / temperature).softmax(dim=-1)


def invert(weight_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Where the distribution function of some weights reaches a share in (0, 1] of its end, (N,).

    First the block of the vocabulary is found, then the entry in it, so that only short runs are
    cumulated. An entry without weight is never hit; what is no number gives some entry.
    """
    entries = weight_NV.shape[1]
    size = math.isqrt(entries)
    blocks, rest = weight_NV.split([entries // size * size, entries % size], dim=1)
    sums_NK = torch.cat([blocks.unflatten(1, (-1, size)).sum(2), rest.sum(1, True)], dim=1)
    ends_NK = sums_NK.cumsum(dim=1)
    target_N1 = uniform_N[:, None] * ends_NK[:, -1:]
    block_N1 = torch.searchsorted(ends_NK, target_N1).clamp(max=ends_NK.shape[1] - 1)
    before_N1 = ends_NK.gather(1, block_N1) - sums_NK.gather(1, block_N1)

    index_NJ = block_N1 * size + torch.arange(size, device=weight_NV.device)
    inside_NJ = weight_NV.gather(1, index_NJ.clamp(max=entries - 1)) * (index_NJ < entries)
    within_NJ = inside_NJ.cumsum(dim=1)
    # Rounded, the target may lie a little outside of its block.
    smallest = torch.finfo(weight_NV.dtype).tiny
    left_N1 = (target_N1 - before_N1).clamp(min=smallest).minimum(within_NJ[:, -1:])
    hit_N1 = torch.searchsorted(within_NJ, left_N1).clamp(max=size - 1)
    return (block_N1 * size + hit_N1).squeeze(1).clamp(max=entries - 1)
