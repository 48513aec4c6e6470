"""How thought tokens are sampled in training.

Shapes: B sequences, N rows, V vocabulary, K blocks of J of its entries.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quietstar_infer.sampling import row_keys, seed_from_text, uniform_numbers
from training.thoughts.batch import IGNORED, Batch

ChooseThoughts = Callable[[Tensor, Tensor, int, int], Tensor]
"""(logits_NV with START and END at -inf, their softmax, step k, number of the first row) to token
ids (N,). The softmax is given because the caller needs it, too.

Rows are numbered sequence by sequence, position by position, thought by thought."""


def greedy_draw(logits_NV: Tensor, _: Tensor, step: int, first_row: int) -> Tensor:
    """The likeliest thought tokens, a `ChooseThoughts`."""
    return logits_NV.argmax(dim=-1)


def recorded_noise(noise_KNV: Tensor) -> ChooseThoughts:
    """argmax(logits + noise): draws that can be repeated, from noise (K steps, N rows, V)."""

    def choose(logits_NV: Tensor, _: Tensor, step: int, first_row: int) -> Tensor:
        rows = slice(first_row, first_row + len(logits_NV))
        return (logits_NV + noise_KNV[step, rows]).argmax(dim=-1)

    return choose


def random_draw(
    temperature: float = 1.0, generator: torch.Generator | None = None
) -> ChooseThoughts:
    """An exact draw from softmax(logits / temperature), by one uniform number per row.

    Gumbel noise would take one per vocabulary entry: on a CPU more work than the language-model
    head.
    """

    def choose(logits_NV: Tensor, probability_NV: Tensor, step: int, first_row: int) -> Tensor:
        uniform_N = torch.rand(len(logits_NV), generator=generator, device=logits_NV.device)
        return _invert(_tempered(logits_NV, probability_NV, temperature), 1 - uniform_N)

    return choose


def seeded_draw(
    seeds: Sequence[int], rows_per_sequence: int, temperature: float = 1.0
) -> ChooseThoughts:
    """An exact draw from softmax(logits / temperature), by one uniform number per row that is a
    function of the sequence's seed, the row's number in the sequence and the step.

    So a resumed run samples what it would have sampled without the interruption, and a sequence's
    thoughts do not depend on the process that has it or on the rest of its batch.
    """
    seed_B = torch.tensor(seeds)

    def choose(logits_NV: Tensor, probability_NV: Tensor, step: int, first_row: int) -> Tensor:
        number_N = torch.arange(first_row, first_row + len(logits_NV))
        seed_N = seed_B[number_N // rows_per_sequence]
        key_N2 = row_keys(seed_N, number_N % rows_per_sequence, torch.full_like(number_N, step))
        weight_NV = _tempered(logits_NV, probability_NV, temperature)
        return _invert(weight_NV, uniform_numbers(key_N2[:, 0]).to(weight_NV))

    return choose


def sequence_seeds(batch: Batch, seed: int, step: int | str) -> list[int]:
    """A seed for every sequence, from the run's seed, the training step and the text."""
    return [
        seed_from_text(f"{seed}/{step}/{ids[labels != IGNORED].tolist()}")
        for ids, labels in zip(batch.input_ids_BT.cpu(), batch.labels_BT.cpu(), strict=True)
    ]


def _tempered(logits_NV: Tensor, probability_NV: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature), from logits and their softmax."""
    if temperature == 1:
        return probability_NV
    return (logits_NV / temperature).softmax(dim=-1)


def _invert(weight_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """The inverse of the cumulative distribution of some weights at numbers in (0, 1], (N,).

    First the block of the vocabulary is found, then the entry in it, so that only short runs are
    cumulated. An entry of weight 0 is never returned; NaN weights give an arbitrary entry.
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
