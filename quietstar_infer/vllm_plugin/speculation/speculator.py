"""Drafts thought tokens, feeds them and finds out which of them were right.

Shapes: N tokens of the batch, U tokens behind which one is sampled, P places that are fed, H
hidden, V vocabulary, S slots, C columns of a slot.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.vllm_plugin.metrics import ThoughtMetrics
from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThoughtStep
from quietstar_infer.vllm_plugin.slots import ThoughtSlots
from quietstar_infer.vllm_plugin.speculation.drafter import DraftedThought, ThoughtDrafter
from quietstar_infer.vllm_plugin.speculation.verification import (
    DraftedRow,
    VerifiedRow,
    valid_places,
    verify,
)
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs, ThoughtSampler, upload

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
        for row in rows:
            column = row.own.column + 1
            self._slots.token_SC[row.own.slot, column : column + row.step.num_drafts] = (
                torch.from_numpy(row.drafts.token_D)
            )
        fed_P3 = np.array([fed for row in rows for fed in self._fed(row)])
        place_P, slot_P, column_P = async_tensor_h2d(fed_P3, device=self._device).unbind(dim=1)
        input_N[place_P] = self._slots.token_SC[slot_P, column_P]

    def _fed(self, row: DraftedRow) -> Iterator[tuple[int, int, int]]:
        """Place, slot and column of each token that a row feeds beside x_p."""
        own = row.own
        for index in range(row.step.num_drafts + 1):
            yield own.place + index, own.slot, own.column + index
        if row.step.feeds_end:
            yield row.end_place, own.slot, self._slots.end_column

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
        inputs = [
            row.own._replace(place=row.own.place + index, column=row.own.column + index)
            for row in rows
            for index in range(row.num_sampled)
        ]
        # Their rows of the logits, which are computed for these alone.
        inputs = [each._replace(row=index) for index, each in enumerate(inputs)]
        logits_UV = compute_logits(hidden_NH[[each.place for each in inputs]])
        assert logits_UV is not None, "every rank has all logits"
        packed_U7 = upload(inputs, self._device)
        sampled_U = self._sampler(logits_UV, packed_U7, self._slots.token_SC, is_greedy)
        verified = verify(rows, sampled_U.cpu().numpy())
        if is_learning:
            self.learn([inputs[place] for place in valid_places(verified)], logits_UV)
        for row in verified:
            self._drafter.record(row.drafted.drafts, row.accepted)
            self._metrics.add_verified(
                row.drafted.step.num_drafts, row.accepted, has_ended=row.has_ended
            )
        return verified

    def learn(self, inputs: Sequence[ThoughtInputs], logits_NV: torch.Tensor) -> None:
        """Learn from the logits, in their rows, behind tokens that are the thoughts' own."""
        self._drafter.learn(
            self._host_tokens(),
            np.array([each.slot for each in inputs], dtype=np.int64),
            np.array([each.column for each in inputs], dtype=np.int64),
            logits_NV[[each.row for each in inputs]],
        )

    def propose(self, thoughts: Sequence[DraftedThought], drafting: Drafting) -> dict[str, int]:
        """Draft what comes next in each thought; returns how many drafts there are for its next
        pass, by request.
        """
        if not thoughts:
            return {}
        slots = [self._slots.find(thought.request_id) for thought in thoughts]
        return self._drafter.propose(thoughts, self._host_tokens()[slots], drafting)

    def _host_tokens(self) -> npt.NDArray[np.int32]:
        """What is in the slots, (S, C); on CUDA this waits for the device."""
        tokens: npt.NDArray[np.int32] = self._slots.token_SC.cpu().numpy()
        return tokens
