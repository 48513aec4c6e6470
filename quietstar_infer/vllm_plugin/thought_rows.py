"""Which rows of a batch think, and where: free functions on numpy arrays.

Shapes: R thinking rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep

Int64Array = npt.NDArray[np.int64]


class ThoughtRows(NamedTuple):
    """A batch's thinking rows, ordered: gate passes, then first passes, middle ones, last ones.

    The order makes every group that is treated alike a slice.
    """

    request_ids: list[str]
    steps: list[ThoughtStep]
    row_R: Int64Array
    num_gates: int
    num_first: int
    num_last: int

    @property
    def gates(self) -> slice:
        """Gate passes, which feed x_p alone: the base hidden state is kept, and it is decided
        whether the request thinks.
        """
        return slice(0, self.num_gates)

    @property
    def first(self) -> slice:
        """First passes, which feed START behind x_p: the base hidden state is kept."""
        return slice(self.num_gates, self.num_gates + self.num_first)

    @property
    def unfinished(self) -> slice:
        """First and middle passes: their logits are the next thought token's."""
        return slice(self.num_gates, len(self.steps) - self.num_last)

    @property
    def num_unfinished(self) -> int:
        """The number of first and middle passes."""
        return len(self.steps) - self.num_last - self.num_gates

    @property
    def last(self) -> slice:
        """Last passes, which feed END behind t_b: base and thought are mixed."""
        return slice(len(self.steps) - self.num_last, len(self.steps))

    @property
    def ends(self) -> slice:
        """Among the places of what they feed: the ENDs, which come after all others."""
        return slice(len(self.steps), len(self.steps) + self.num_last)

    @property
    def fed(self) -> slice:
        """Among the same places: where the thoughts feed a token, so all but the gates'."""
        return slice(self.num_gates, len(self.steps) + self.num_last)


def collect_rows(steps: Mapping[str, ThoughtStep], row_of: Mapping[str, int]) -> ThoughtRows:
    """The thinking rows of a batch; `row_of` is the batch row of each request."""
    gates: list[tuple[str, ThoughtStep]] = []
    first: list[tuple[str, ThoughtStep]] = []
    middle: list[tuple[str, ThoughtStep]] = []
    last: list[tuple[str, ThoughtStep]] = []
    for request_id, step in steps.items():
        if step.is_gate:
            group = gates
        elif step.is_first:
            group = first
        else:
            group = last if step.is_last else middle
        group.append((request_id, step))
    ordered = [*gates, *first, *middle, *last]
    return ThoughtRows(
        request_ids=[request_id for request_id, _ in ordered],
        steps=[step for _, step in ordered],
        row_R=np.array([row_of[request_id] for request_id, _ in ordered], dtype=np.int64),
        num_gates=len(gates),
        num_first=len(first),
        num_last=len(last),
    )


def text_positions(
    rows: ThoughtRows, num_computed: npt.NDArray[np.int32], num_scheduled: npt.NDArray[np.int32]
) -> Int64Array:
    """Position p of the text token x_p that each row thinks about, (R,).

    Where x_p is fed in this pass, it is the last of the row's tokens before those of the thought;
    later, vLLM's count of computed tokens stays at p.
    """
    position_R = num_computed.take(rows.row_R).astype(np.int64)
    num_feeding = rows.num_gates + rows.num_first
    if num_feeding:
        # x_p may be the end of a whole prompt; in a first pass, START comes behind it.
        position_R[:num_feeding] += num_scheduled.take(rows.row_R[:num_feeding])
        position_R[: rows.num_gates] -= 1
        position_R[rows.first] -= 2
    return position_R


def position_offsets(rows: ThoughtRows) -> npt.NDArray[np.int32]:
    """How far behind vLLM's count of computed tokens each row's pass starts, (R,)."""
    return np.array([step.offset for step in rows.steps], dtype=np.int32)


def fed_places(rows: ThoughtRows, query_start_loc: npt.NDArray[np.int32]) -> Int64Array:
    """Where among the batch's tokens each thought feeds its own, (R,): START, behind x_p, in a
    first pass, else t_k. END comes after it. In a gate pass: where x_p is.
    """
    place_R = query_start_loc.take(rows.row_R + 1).astype(np.int64) - 1
    if rows.num_last:
        place_R[rows.last] -= 1
    return place_R
