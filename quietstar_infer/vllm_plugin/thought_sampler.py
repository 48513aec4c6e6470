"""The next thought token of every row that thinks: one operation per pass, compiled into one.

What it has to know of each row comes in one upload, *packed*; what it chooses goes into the
thought's memory, where the next pass finds what to feed.

Shapes: N rows of the batch, U rows that choose, F tokens that are fed, V vocabulary, S slots, C
columns of the memory.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._dynamo.decorators import mark_unbacked
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.sampling import draw_thought_tokens

Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""The chosen tokens, (U,), of logits (N, V), rows as uploaded (U, 7), and the memory's tokens
(S, C), to which they are added."""


class Fed(NamedTuple):
    """What there is to know about a token that a thought feeds: integers, or on the device, for all
    such tokens of a pass, (F,) each.
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
    temperature_bits: Any


def bits_of(number: float) -> int:
    """A float64 as an integer of the same bits, for company with integers."""
    return int(np.float64(number).view(np.int64))


def upload(fed: Sequence[Fed], device: torch.device) -> torch.Tensor:
    """(F, 7), in one copy, which the device need not wait for."""
    return async_tensor_h2d(np.array(fed, dtype=np.int64), device=device)


def unpack(packed_F7: torch.Tensor) -> Fed:
    """What was uploaded, column by column."""
    return Fed(*packed_F7.unbind(dim=1))


def sampled(
    logits_NV: torch.Tensor, packed_U7: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """Draws of `draw_thought_tokens`, greedy where the temperature is 0."""
    fed = unpack(packed_U7)
    temperature_U = fed.temperature_bits.view(torch.float64).float()
    noise = (fed.seed, fed.position, fed.column)
    token_U = draw_thought_tokens(logits_NV[fed.row], temperature_U, *noise).to(token_SC.dtype)
    token_SC[fed.slot, fed.column + 1] = token_U
    return token_U


def likeliest(
    logits_NV: torch.Tensor, packed_U7: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """The same at temperature 0 everywhere, without its noise."""
    fed = unpack(packed_U7)
    token_U = logits_NV[fed.row].argmax(dim=-1).to(token_SC.dtype)
    token_SC[fed.slot, fed.column + 1] = token_U
    return token_U


class Choice:
    """Either of the two."""

    def __init__(self, is_compiled: bool) -> None:
        self._sampled: Choose = torch.compile(sampled, dynamic=True) if is_compiled else sampled

    def __call__(
        self,
        logits_NV: torch.Tensor,
        packed_U7: torch.Tensor,
        token_SC: torch.Tensor,
        is_greedy: bool,
    ) -> torch.Tensor:
        """Choose for rows of which all are greedy, or some are not."""
        choose = likeliest if is_greedy else self._sampled
        return choose(logits_NV, packed_U7, token_SC)

    def warm_up(self, vocab_size: int, dtype: torch.dtype, token_SC: torch.Tensor) -> None:
        """Compile it, once and for any number of rows, before a request waits for it."""
        logits_NV = torch.zeros(2, vocab_size, dtype=dtype, device=token_SC.device)
        packed_U7 = torch.zeros(3, 7, dtype=torch.int64, device=token_SC.device)
        # By default one row would be compiled by itself, and as many rows as the batch has, too.
        mark_unbacked(logits_NV, 0)
        mark_unbacked(packed_U7, 0)
        self(logits_NV, packed_U7, token_SC.clone(), is_greedy=False)
