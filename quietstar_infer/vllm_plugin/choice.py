"""The next thought token of every row that thinks: one operation per pass, compiled into one.

What it has to know of each row comes in one upload, *packed*; what it chooses goes into the
thought's memory, where the next pass finds what to feed.

Shapes: N rows of the batch, U rows that choose, F tokens that are fed, V vocabulary, S slots, C
columns of the memory.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch._dynamo.decorators import mark_unbacked

from quietstar_infer.sampling import draw_thought_tokens

Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""The chosen tokens, (U,), of logits (N, V), packed facts (U, 7) and the memory's tokens (S, C),
to which they are added."""


class Facts(NamedTuple):
    """About every token that a thought feeds in a pass, (F,) each: lists on the host, int64 on the
    device.
    """

    # Its row of the batch, and its place among the batch's tokens.
    row: Any
    place: Any
    # Where the memory has it. The column is the pass's number, too, except END's.
    slot: Any
    column: Any
    # Of the thought: what the noise of its next token depends on, beside the pass.
    seed: Any
    position: Any
    temperature: Any


def pack(facts: Facts) -> npt.NDArray[np.int64]:
    """(F, 7), the temperatures by their bits."""
    packed_F7 = np.empty((len(facts.row), len(facts)), dtype=np.int64)
    for index, column in enumerate(facts[:-1]):
        packed_F7[:, index] = column
    packed_F7.view(np.float64)[:, -1] = facts.temperature
    return packed_F7


def unpack(packed_F7: torch.Tensor) -> Facts:
    """The inverse of `pack`, on the device."""
    facts = Facts(*packed_F7.unbind(dim=1))
    return facts._replace(temperature=facts.temperature.view(torch.float64).float())


def sampled(
    logits_NV: torch.Tensor, packed_U7: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """Draws of `draw_thought_tokens`, greedy where the temperature is 0."""
    facts = unpack(packed_U7)
    noise = (facts.temperature, facts.seed, facts.position, facts.column)
    token_U = draw_thought_tokens(logits_NV[facts.row], *noise).to(token_SC.dtype)
    token_SC[facts.slot, facts.column + 1] = token_U
    return token_U


def likeliest(
    logits_NV: torch.Tensor, packed_U7: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """The same at temperature 0 everywhere, without its noise."""
    facts = unpack(packed_U7)
    token_U = logits_NV[facts.row].argmax(dim=-1).to(token_SC.dtype)
    token_SC[facts.slot, facts.column + 1] = token_U
    return token_U


class Choice:
    """Either, as the temperatures ask for it."""

    def __init__(self, is_compiled: bool) -> None:
        self._sampled: Choose = torch.compile(sampled, dynamic=True) if is_compiled else sampled

    def __call__(
        self,
        logits_NV: torch.Tensor,
        packed_U7: torch.Tensor,
        token_SC: torch.Tensor,
        temperatures: Sequence[float],
    ) -> torch.Tensor:
        """Choose for rows with these temperatures."""
        choose = self._sampled if any(temperatures) else likeliest
        return choose(logits_NV, packed_U7, token_SC)

    def warm_up(self, vocab_size: int, dtype: torch.dtype, token_SC: torch.Tensor) -> None:
        """Compile it, once and for any number of rows, before a request waits for it."""
        logits_NV = torch.zeros(2, vocab_size, dtype=dtype, device=token_SC.device)
        packed_U7 = torch.zeros(3, 7, dtype=torch.int64, device=token_SC.device)
        # By default one row would be compiled by itself, and as many rows as the batch has, too.
        mark_unbacked(logits_NV, 0)
        mark_unbacked(packed_U7, 0)
        self(logits_NV, packed_U7, token_SC.clone(), [1.0])
