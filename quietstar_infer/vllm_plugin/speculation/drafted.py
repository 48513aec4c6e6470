"""The thoughts of a whole batch while passes with drafts are run, one after the other.

Shapes: R thoughts, one in each row of the batch; N tokens of a pass, U of them behind which one is
sampled, L thoughts that have ended, H hidden.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThoughtStep
from quietstar_infer.vllm_plugin.speculation.passes import THOUGHT
from quietstar_infer.vllm_plugin.thought_rows import Int64Array
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs


class DraftedPass(NamedTuple):
    """What a pass feeds: tokens (N,), their positions (N,), and how many are each row's, (R,), from
    which position on, (R,). `input_U8`: those behind which one is sampled.
    """

    token_N: npt.NDArray[np.int32]
    position_N: Int64Array
    length_R: Int64Array
    start_R: Int64Array
    input_U8: Int64Array


class DraftedThoughts:
    """Thoughts by row of the batch, and how far each has got.

    `hidden_RH`: the thought's hidden state, END's, where it has ended.
    """

    def __init__(
        self,
        request_ids: Sequence[str],
        steps: Sequence[ThoughtStep],
        fed: Sequence[ThoughtInputs],
        temperatures: Sequence[float],
        text_tokens: Sequence[int],
        drafting: Drafting,
        hidden_RH: torch.Tensor,
    ) -> None:
        """`steps` are their next passes, `fed` what these feed of their own; `text_tokens` x_p,
        where that is still to be fed, else -1.
        """
        self.request_ids = list(request_ids)
        self.steps = list(steps)
        self.drafting = drafting
        self.hidden_RH = hidden_RH
        self.thought_R = np.zeros(len(fed), dtype=THOUGHT)
        own = ThoughtInputs(*np.array(fed, dtype=np.int64).T)
        for name in ("slot", "seed", "position", "temperature_bits", "num_given"):
            self.thought_R[name] = getattr(own, name)
        self.thought_R["known"] = own.column
        self.thought_R["budget"] = [step.budget for step in steps]
        self.thought_R["temperature"] = temperatures
        self.thought_R["text_token"] = text_tokens
        self.is_greedy = not any(temperatures)
        self._is_kept_R = np.zeros(len(fed), dtype=np.bool_)
        self.num_passes = self.num_tokens = 0
        self.num_going_on = len(self.thought_R)
        # How long those that have ended have waited for the others, in passes of the whole batch.
        self._waited = 0.0

    @property
    def has_ended_R(self) -> npt.NDArray[np.bool_]:
        """Which thoughts have ended, (R,)."""
        has_ended: npt.NDArray[np.bool_] = self.thought_R["has_ended"]
        return has_ended

    def advance(self, hidden_NH: torch.Tensor, num_ended: int) -> None:
        """A pass has been run and settled, in which so many thoughts have ended: keep their hidden
        states.
        """
        self.num_passes += 1
        self.num_tokens += len(hidden_NH)
        if num_ended:
            fresh_R = self.has_ended_R & ~self._is_kept_R
            row_E = np.flatnonzero(fresh_R)
            end_E = self.thought_R["place"][row_E] + self.thought_R["num_drafts"][row_E] + 1
            self.hidden_RH[row_E] = hidden_NH[end_E]
            self._is_kept_R |= fresh_R
            self.num_going_on -= num_ended

    def goes_on(self) -> bool:
        """Whether another pass is worth it: until all thoughts have ended, or those that have would
        wait for the others longer than it takes to go on without them.
        """
        num_ended = len(self.thought_R) - self.num_going_on
        self._waited += num_ended / len(self.thought_R)
        return self.num_going_on > 0 and (num_ended == 0 or self._waited <= self.drafting.patience)

    def reached(self) -> dict[str, int]:
        """By request, the phase that its thought has got to."""
        reached_R = self.thought_R["known"] - ~self.has_ended_R
        return dict(zip(self.request_ids, reached_R.tolist(), strict=True))

    def ended(self) -> tuple[list[str], list[ThoughtStep], list[ThoughtInputs]]:
        """Of those that have ended: request ids, last passes, and their last tokens, as if these
        and END were fed in the batch's rows of `hidden_RH`.
        """
        row_L: list[int] = np.flatnonzero(self.has_ended_R).tolist()
        steps = [self.steps[row] for row in row_L]
        return (
            [self.request_ids[row] for row in row_L],
            [step.next(step.budget - step.phase) for step in steps],
            [self._last_input(row, self.thought_R[row]) for row in row_L],
        )

    def _last_input(self, row: int, thought: Any) -> ThoughtInputs:
        return ThoughtInputs(
            row,
            row - 1,
            int(thought["slot"]),
            int(thought["budget"]),
            int(thought["seed"]),
            int(thought["position"]),
            int(thought["temperature_bits"]),
            int(thought["num_given"]),
        )
