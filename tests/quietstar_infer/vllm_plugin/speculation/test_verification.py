"""Which drafts were right."""

import numpy as np
import pytest

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep
from quietstar_infer.vllm_plugin.speculation.drafter import Drafts
from quietstar_infer.vllm_plugin.speculation.verification import (
    DraftedRow,
    valid_places,
    verify,
)
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs

END = 77


def row(phase: int, budget: int, drafts: list[int]) -> DraftedRow:
    step = ThoughtStep(phase, budget, 0, num_drafts=len(drafts))
    own = ThoughtInputs(0, 10, 2, phase, 0, 0, 0)
    token_D = np.array(drafts, dtype=np.int32)
    return DraftedRow("a", step, own, Drafts(token_D, np.zeros(len(drafts), dtype=np.int64)))


@pytest.mark.parametrize(
    ("sampled", "accepted"),
    [([5, 6, 7], 2), ([5, 9, 7], 1), ([9, 6, 7], 0), ([9, 9, 9], 0)],
)
def test_drafts_are_right_up_to_the_first_that_is_not(sampled: list[int], accepted: int) -> None:
    drafted = row(1, 8, [5, 6])
    assert drafted.behind(END) == [5, 6]
    (verified,) = verify([drafted], sampled)
    assert verified.accepted == accepted
    assert not verified.has_ended
    assert verified.reached == 1 + accepted
    # Behind the last right one a token has been sampled, too.
    assert valid_places([verified]) == list(range(accepted + 1))


@pytest.mark.parametrize(("sampled", "ends"), [([5, 6, 7], True), ([5, 6, 8], False)])
def test_with_the_whole_thought_drafted_end_is_in_the_same_row(
    sampled: list[int], ends: bool
) -> None:
    drafted = row(5, 8, [5, 6, 7])
    assert drafted.behind(END) == [5, 6, 7, END]
    assert drafted.num_sampled == 3
    (verified,) = verify([drafted], sampled)
    assert verified.has_ended == ends
    assert verified.reached == (8 if ends else 7)
    assert drafted.end_place == 14
    assert (verified.last_input.place, verified.last_input.column) == (13, 8)


def test_rows_of_different_lengths() -> None:
    rows = [row(1, 8, [5]), row(5, 8, [1, 2, 3]), row(0, 4, [7, 7])]
    verified = verify(rows, [5, 6, 1, 9, 9, 7, 7, 8])
    assert [each.accepted for each in verified] == [1, 1, 2]
    assert valid_places(verified) == [0, 1, 2, 3, 5, 6, 7]
