"""Index arithmetic of one batch's thinking rows: free functions on numpy arrays, R rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep

Int64Array = npt.NDArray[np.int64]


class ThinkingRows(NamedTuple):
    """A batch's thinking rows, ordered: first passes, then middle ones, then last ones.

    The order makes every group that is treated alike a slice.
    """

    request_ids: list[str]
    steps: list[ThoughtStep]
    row_R: Int64Array
    num_first: int
    num_last: int

    @property
    def first(self) -> slice:
        """Passes with START riding along: the base hidden state is kept."""
        return slice(0, self.num_first)

    @property
    def unfinished(self) -> slice:
        """Passes whose logits say the next thought token."""
        return slice(0, len(self.steps) - self.num_last)

    @property
    def last(self) -> slice:
        """Passes with END riding along: base and thought are mixed."""
        return slice(len(self.steps) - self.num_last, len(self.steps))


def collect_rows(steps: Mapping[str, ThoughtStep], row_of: Mapping[str, int]) -> ThinkingRows:
    """The thinking rows of a batch; `row_of` is the batch row of each request."""
    first: list[tuple[str, ThoughtStep]] = []
    middle: list[tuple[str, ThoughtStep]] = []
    last: list[tuple[str, ThoughtStep]] = []
    for request_id, step in steps.items():
        group = first if step.is_first else last if step.is_last else middle
        group.append((request_id, step))
    ordered = [*first, *middle, *last]
    return ThinkingRows(
        request_ids=[request_id for request_id, _ in ordered],
        steps=[step for _, step in ordered],
        row_R=np.array([row_of[request_id] for request_id, _ in ordered], dtype=np.int64),
        num_first=len(first),
        num_last=len(last),
    )


def text_positions(
    rows: ThinkingRows, num_computed: npt.NDArray[np.int32], num_scheduled: npt.NDArray[np.int32]
) -> Int64Array:
    """Position p of the text token that each row thinks about, (R,).

    In a first pass x_p is the last but one of the row's tokens (START rides behind it); later,
    vLLM's count of computed tokens stays at p.
    """
    position_R = num_computed[rows.row_R].astype(np.int64)
    first = rows.row_R[rows.first]
    position_R[rows.first] += num_scheduled[first] - 2
    return position_R


def shifts(rows: ThinkingRows) -> npt.NDArray[np.int32]:
    """How far each row's pass starts behind vLLM's count of computed tokens, (R,)."""
    return np.array([step.shift for step in rows.steps], dtype=np.int32)
