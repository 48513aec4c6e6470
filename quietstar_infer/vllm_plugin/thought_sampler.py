"""Samples the next thought token of every row, in one compiled operation per pass. Of a
given thought it takes the given token instead.

What it has to know of each row comes in one upload, *packed*; what it samples goes into the
thought's slot, where the next pass finds what to feed.

Shapes: N rows of the batch, U rows that sample, F tokens that are fed, V vocabulary, S slots, C
columns of a slot.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from vllm.model_executor.layers.vocab_parallel_embedding import pad_vocab_size
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.compiled import CompiledFunction
from quietstar_infer.sampling import draw_thought_tokens

SampleThoughts = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""The sampled tokens, (U,), from logits (N, V), inputs as uploaded (U, 8), and the slots' tokens
(S, C), to which they are added."""


class ThoughtInputs(NamedTuple):
    """What is to be known about a token that a thought feeds: integers, or on the device, for all
    such tokens of a pass, (F,) each.
    """

    # Its row of the batch, and its place among the batch's tokens.
    row: Any
    place: Any
    # Where it is kept. The column is the phase, too, except END's. In a gate pass, which feeds
    # nothing of a thought, it is the budget of the thought that there may be.
    slot: Any
    column: Any
    # Of the thought: what the noise of its next token depends on, beside the phase.
    seed: Any
    position: Any
    temperature_bits: Any
    # How many of its tokens are given: these are in the slot already, and stay.
    num_given: Any = 0


def bits_of(number: float) -> int:
    """A float64 as an integer of the same bits, so that it can be uploaded among integers."""
    return int(np.float64(number).view(np.int64))


def upload(inputs: Sequence[ThoughtInputs], device: torch.device) -> torch.Tensor:
    """(F, 8) int64, in one copy, for which neither host nor device waits."""
    packed = np.array(inputs, dtype=np.int64).reshape(-1, len(ThoughtInputs._fields))
    return async_tensor_h2d(packed, device=device)


def unpack(packed_F8: torch.Tensor) -> ThoughtInputs:
    """What was uploaded, column by column: views, nothing is copied."""
    return ThoughtInputs(*packed_F8.unbind(dim=1))


def example_inputs(device: torch.device) -> torch.Tensor:
    """Something like what is uploaded, of three tokens, to compile for."""
    return torch.zeros(3, len(ThoughtInputs._fields), dtype=torch.int64, device=device)


def sample_seeded(
    logits_NV: torch.Tensor, packed_U8: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """`draw_thought_tokens`: greedy where the temperature is 0."""
    inputs = unpack(packed_U8)
    temperature_U = inputs.temperature_bits.view(torch.float64).float()
    noise = (inputs.seed, inputs.position, inputs.column)
    token_U = draw_thought_tokens(logits_NV[inputs.row], temperature_U, *noise)
    return _keep(token_U, inputs, token_SC)


def sample_greedy(
    logits_NV: torch.Tensor, packed_U8: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """The same at temperature 0 in all rows, without computing the noise."""
    inputs = unpack(packed_U8)
    return _keep(logits_NV[inputs.row].argmax(dim=-1), inputs, token_SC)


def _keep(token_U: torch.Tensor, inputs: ThoughtInputs, token_SC: torch.Tensor) -> torch.Tensor:
    """Put sampled tokens into their slots, where none is given; returns those that count, (U,)."""
    given_U = token_SC[inputs.slot, inputs.column + 1]
    token_U = torch.where(inputs.column < inputs.num_given, given_U, token_U.to(token_SC.dtype))
    token_SC[inputs.slot, inputs.column + 1] = token_U
    return token_U


class ThoughtSampler:
    """The greedy and the seeded sampler of thought tokens, compiled by `warm_up` if asked for."""

    def __init__(self, is_compiled: bool) -> None:
        self._is_compiled = is_compiled
        self._sample_greedy: SampleThoughts = sample_greedy
        self._sample_seeded: SampleThoughts = sample_seeded

    def __call__(
        self,
        logits_NV: torch.Tensor,
        packed_U8: torch.Tensor,
        token_SC: torch.Tensor,
        is_greedy: bool,
    ) -> torch.Tensor:
        """Sample a token for each row of `packed_U8`, (U,), and keep it in the row's slot.

        `is_greedy`: the temperature is 0 in all rows.
        """
        sample = self._sample_greedy if is_greedy else self._sample_seeded
        return sample(logits_NV, packed_U8, token_SC)

    # As the engine runs them.
    @torch.inference_mode()
    def warm_up(self, vocab_size: int, dtype: torch.dtype, token_SC: torch.Tensor) -> None:
        """Compile, once and for any number of rows, before a request waits for it."""
        if not self._is_compiled:
            return
        # vLLM pads the vocabulary and cuts the logits down to it; here there is always some to cut,
        # so that the padded length is left open.
        padded_size = pad_vocab_size(vocab_size + 1)
        padded_NP = torch.zeros(2, padded_size, dtype=dtype, device=token_SC.device)
        # A copy made in inference mode would be another kind of tensor than the slots.
        with torch.inference_mode(False):
            scratch_SC = token_SC.clone()
        examples = [padded_NP[:, :vocab_size], example_inputs(token_SC.device), scratch_SC]
        self._sample_greedy = CompiledFunction(sample_greedy, examples, rows=(0, 1))
        self._sample_seeded = CompiledFunction(sample_seeded, examples, rows=(0, 1))
