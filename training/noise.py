"""Thought noise that depends on (seed, step, text, position, thought, token) and on nothing else.

So a run that was stopped goes on as if it had not been, and thoughts are the same whichever process
has the sequence and whatever else is in its batch.

Shapes: B sequences, N rows, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from quietstar_infer.sampling import row_keys, seed_from_text, uniform_numbers
from training.thoughts.batch import IGNORED, Batch
from training.thoughts.sampling import ChooseThoughts, invert, tempered


def sequence_seeds(batch: Batch, seed: int, step: int | str) -> list[int]:
    """A seed for every sequence, from its text."""
    return [
        seed_from_text(f"{seed}/{step}/{ids[labels != IGNORED].tolist()}")
        for ids, labels in zip(batch.input_ids_BT.cpu(), batch.labels_BT.cpu(), strict=True)
    ]


def seeded_draw(
    seeds: Sequence[int], rows_per_sequence: int, temperature: float = 1.0
) -> ChooseThoughts:
    """An exact draw from softmax(logits / temperature) by one uniform number per row."""
    seed_B = torch.tensor(seeds)

    def choose(logits_NV: Tensor, probability_NV: Tensor, step: int, first_row: int) -> Tensor:
        number_N = torch.arange(first_row, first_row + len(logits_NV))
        seed_N = seed_B[number_N // rows_per_sequence]
        key_N2 = row_keys(seed_N, number_N % rows_per_sequence, torch.full_like(number_N, step))
        weight_NV = tempered(logits_NV, probability_NV, temperature)
        return invert(weight_NV, uniform_numbers(key_N2[:, 0]).to(weight_NV))

    return choose
