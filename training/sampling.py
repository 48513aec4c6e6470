"""How thought tokens are drawn in training.

Shapes: N rows, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ChooseThoughts = Callable[[Tensor, int, int], Tensor]
"""(logits_NV with START and END at -inf, step k, number of the first row) to token ids (N,).

Rows are numbered sequence by sequence, position by position, thought by thought."""


def recorded_noise(noise_KNV: Tensor) -> ChooseThoughts:
    """argmax(logits + noise): draws that can be repeated, from noise (K steps, N rows, V)."""

    def choose(logits_NV: Tensor, step: int, first_row: int) -> Tensor:
        rows = slice(first_row, first_row + len(logits_NV))
        return (logits_NV + noise_KNV[step, rows]).argmax(dim=-1)

    return choose


def draw(temperature: float = 1.0, generator: torch.Generator | None = None) -> ChooseThoughts:
    """An exact draw from softmax(logits / temperature), by inverting the distribution function.

    One uniform number per row, where Gumbel noise takes one per vocabulary entry: on a CPU that
    would cost more than the language-model head.
    """

    def choose(logits_NV: Tensor, step: int, first_row: int) -> Tensor:
        weight_NV = (logits_NV.float() / temperature).softmax(dim=-1)
        cumulated_NV = weight_NV.cumsum(dim=-1)
        uniform_N1 = torch.rand((len(logits_NV), 1), generator=generator, device=logits_NV.device)
        # The last entry with any weight ends at the total, not quite 1 after rounding.
        target_N1 = (1 - uniform_N1) * cumulated_NV[:, -1:]
        return torch.searchsorted(cumulated_NV, target_N1).squeeze(-1)

    return choose
