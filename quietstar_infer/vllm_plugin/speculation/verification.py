"""The rows of a batch that feed drafts, and which of these were right.

Shapes: N tokens of the batch, D rows with drafts, U tokens behind which one is sampled, H hidden, V
vocabulary, C columns of a slot.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep
from quietstar_infer.vllm_plugin.speculation.drafter import Drafts
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs

Int64Array = npt.NDArray[np.int64]


class DraftedRow(NamedTuple):
    """A thought that feeds `drafts` behind a token of its own.

    `row`: of the batch; `place`: of its own token, among the batch's. `position`: where the text
    token that is thought about lies in the request. `inputs`: the tokens behind which it samples
    one: its own and its drafts, but not one that END follows.
    """

    request_id: str
    step: ThoughtStep
    row: int
    place: int
    slot: int
    position: int
    drafts: Drafts
    inputs: list[ThoughtInputs]

    @property
    def end_place(self) -> int:
        """Where END is fed, if it is."""
        return self.place + self.step.num_drafts + 1


class VerifiedRow(NamedTuple):
    """A row with drafts after its pass: so many of them were right."""

    drafted: DraftedRow
    accepted: int

    @property
    def has_ended(self) -> bool:
        """Whether the thought has ended, so that the visible token is sampled."""
        return self.drafted.step.ends_with(self.accepted)

    @property
    def num_known(self) -> int:
        """How many of its tokens the thought has got."""
        step = self.drafted.step
        return step.budget if self.has_ended else step.phase + self.accepted + 1


def sampling_inputs(
    step: ThoughtStep, place: int, slot: int, seed: int, position: int, temperature_bits: int
) -> list[ThoughtInputs]:
    """For `DraftedRow.inputs`. Their rows are those of the logits behind these tokens; they are
    numbered when the batch is complete.
    """
    number = step.num_drafts + (0 if step.feeds_end else 1)
    return [
        ThoughtInputs(0, place + index, slot, step.phase + index, seed, position, temperature_bits)
        for index in range(number)
    ]


def numbered(rows: list[DraftedRow]) -> list[ThoughtInputs]:
    """The tokens of all rows behind which one is sampled, (U,), with their rows of logits."""
    inputs = [each for row in rows for each in row.inputs]
    return [each._replace(row=index) for index, each in enumerate(inputs)]


def verify(rows: list[DraftedRow], sampled_U: npt.NDArray[np.int32]) -> list[VerifiedRow]:
    """Compare each row's drafts with what was sampled behind the token before each."""
    verified, start = [], 0
    for row in rows:
        draft_D = row.drafts.token_D
        wrong = np.flatnonzero(draft_D != sampled_U[start : start + len(draft_D)])
        verified.append(VerifiedRow(row, int(wrong[0]) if wrong.size else len(draft_D)))
        start += len(row.inputs)
    return verified


def drafted_steps(steps: Mapping[str, ThoughtStep]) -> dict[str, ThoughtStep]:
    """The passes among these that feed drafts."""
    return {request_id: step for request_id, step in steps.items() if step.num_drafts}


def valid_inputs(verified: list[VerifiedRow]) -> Int64Array:
    """Which of the (U,) tokens are the thought's own, with right drafts before them only."""
    start = 0
    indices: list[int] = []
    for row in verified:
        number = min(row.accepted + 1, len(row.drafted.inputs))
        indices.extend(range(start, start + number))
        start += len(row.drafted.inputs)
    return np.array(indices, dtype=np.int64)
