"""Drafts thought tokens, feeds them and finds out which of them were right.

Shapes: N tokens of the batch, D rows with drafts, U tokens behind which one is sampled, P drafts
and ENDs, H hidden, V vocabulary, S slots, C columns of a slot.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.vllm_plugin.metrics import ThoughtMetrics
from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThoughtStep
from quietstar_infer.vllm_plugin.slots import ThoughtSlots
from quietstar_infer.vllm_plugin.speculation.drafter import DraftedThought, ThoughtDrafter
from quietstar_infer.vllm_plugin.speculation.ngrams import Int32Array
from quietstar_infer.vllm_plugin.speculation.verification import (
    DraftedRow,
    VerifiedRow,
    valid_places,
    verify,
)
from quietstar_infer.vllm_plugin.thought_rows import Int64Array
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs, ThoughtSampler, unpack

ComputeLogits = Callable[[torch.Tensor], torch.Tensor | None]


class ThoughtSpeculator:
    """The speculative part of a worker's thoughts, on what it keeps of them in slots."""

    def __init__(
        self,
        slots: ThoughtSlots,
        sampler: ThoughtSampler,
        metrics: ThoughtMetrics,
        device: torch.device,
    ) -> None:
        self._slots = slots
        self._sampler = sampler
        self._metrics = metrics
        self._device = device
        self._drafter = ThoughtDrafter()
        self._end_token_id = int(slots.token_SC[0, slots.end_column])

    def warm_up(self) -> None:
        """Have what is compiled compiled before a request waits for it."""
        ThoughtDrafter.warm_up()

    def forget(self, request_id: str) -> None:
        """A request's thought is given up, or the request has ended."""
        self._drafter.forget(request_id)

    def take(self, request_id: str, step: ThoughtStep, own: ThoughtInputs) -> DraftedRow:
        """The row of a pass that feeds drafts behind its own token."""
        return DraftedRow(request_id, step, own, self._drafter.take(request_id, step.num_drafts))

    def feed(self, rows: Sequence[DraftedRow], input_N: torch.Tensor) -> None:
        """Write each row's own token, its drafts and END into the batch's input tokens."""
        own_D8 = np.array([row.own for row in rows], dtype=np.int64)
        fed = [
            (row.own.place + 1 + index, token)
            for row in rows
            for index, token in enumerate(row.behind(self._end_token_id))
        ]
        own = unpack(async_tensor_h2d(own_D8, device=self._device))
        place_P, token_P = async_tensor_h2d(np.array(fed), device=self._device).unbind(dim=1)
        input_N[own.place] = self._slots.token_SC[own.slot, own.column]
        input_N[place_P] = token_P.to(input_N.dtype)

    def verify(
        self,
        rows: Sequence[DraftedRow],
        hidden_NH: torch.Tensor,
        compute_logits: ComputeLogits,
        *,
        is_greedy: bool,
        is_learning: bool,
    ) -> tuple[VerifiedRow, ...]:
        """Sample behind the tokens of each row as its thought would have, one by one, and see how
        many of its drafts were right. What was sampled behind these is in its slot then.
        """
        input_U8 = _sampling_inputs(rows)
        packed_U8 = async_tensor_h2d(input_U8, device=self._device)
        logits_UV = compute_logits(hidden_NH[unpack(packed_U8).place])
        assert logits_UV is not None, "every rank has all logits"
        sampled_U = self._sampler(logits_UV, packed_U8, self._slots.token_SC, is_greedy)
        verified = verify(rows, sampled_U.tolist())
        if is_learning:
            self._learn(input_U8[valid_places(verified)], logits_UV)
        for row in verified:
            self._drafter.record(row.drafted.drafts, row.accepted)
            self._metrics.add_verified(
                row.drafted.step.num_drafts, row.accepted, has_ended=row.has_ended
            )
        return verified

    def learn(self, inputs: Sequence[ThoughtInputs], logits_NV: torch.Tensor) -> None:
        """Learn from the logits, in their rows, behind tokens that are the thoughts' own."""
        self._learn(np.array(inputs, dtype=np.int64), logits_NV)

    def _learn(self, input_U8: Int64Array, logits_NV: torch.Tensor) -> None:
        # Contiguous: what is compiled is compiled for that.
        inputs = ThoughtInputs(*np.ascontiguousarray(input_U8.T))
        row_U = async_tensor_h2d(inputs.row, device=self._device)
        self._drafter.learn(self._host_tokens(), inputs.slot, inputs.column, logits_NV[row_U])

    def propose(self, thoughts: Sequence[DraftedThought], drafting: Drafting) -> dict[str, int]:
        """Draft what comes next in each thought; returns how many drafts there are for its next
        pass, by request.
        """
        if not thoughts:
            return {}
        slots = [self._slots.find(thought.request_id) for thought in thoughts]
        return self._drafter.propose(thoughts, self._host_tokens()[slots], drafting)

    def _host_tokens(self) -> Int32Array:
        """What is in the slots, (S, C); on CUDA this waits for the device."""
        tokens: Int32Array = self._slots.token_SC.cpu().numpy()
        return tokens


def _sampling_inputs(rows: Sequence[DraftedRow]) -> Int64Array:
    """The rows' tokens behind which one is sampled, (U, 8), as they are uploaded; their logits,
    which are computed for them alone, are in the same order.
    """
    number_D = np.array([row.num_sampled for row in rows])
    end_D = number_D.cumsum()
    input_U8 = np.array([row.own for row in rows], dtype=np.int64).repeat(number_D, axis=0)
    inputs = ThoughtInputs(*input_U8.T)
    inputs.row[:] = np.arange(end_D[-1])
    within_U = inputs.row - (end_D - number_D).repeat(number_D)
    inputs.place[:] += within_U
    inputs.column[:] += within_U
    return input_U8
