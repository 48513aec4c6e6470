"""Index arithmetic of a batch's thinking rows."""

import numpy as np

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep
from quietstar_infer.vllm_plugin.thought_rows import (
    collect_rows,
    fed_places,
    position_offsets,
    text_positions,
)

# By batch row: a prompt of 5 tokens and START; t_3 and END; a decoding request; t_2; x_p and START;
# a prompt of 3 tokens whose gate decides; START alone.
NUM_SCHEDULED = np.array([6, 2, 1, 1, 2, 3, 1], dtype=np.int32)
STARTS = np.array([0, 6, 8, 9, 10, 12, 15, 16], dtype=np.int32)
# vLLM's count stays at p during a thought.
NUM_COMPUTED = np.array([0, 40, 30, 20, 10, 50, 60], dtype=np.int32)
STEPS = {
    "last": ThoughtStep(3, 3, 0),
    "middle": ThoughtStep(2, 3, 0),
    "prompt": ThoughtStep(0, 3, 0),
    "first": ThoughtStep(0, 3, 1),
    "gate": ThoughtStep.first(3, 0, is_gated=True),
    "start": ThoughtStep.first(3, 1, is_gated=True).next(),
}
ROW_OF = {"prompt": 0, "last": 1, "decoding": 2, "middle": 3, "first": 4, "gate": 5, "start": 6}
ROWS = collect_rows(STEPS, ROW_OF)


def test_rows_are_grouped_by_what_happens_to_them() -> None:
    assert ROWS.request_ids == ["gate", "prompt", "first", "middle", "start", "last"]
    assert ROWS.row_R.tolist() == [5, 0, 4, 3, 6, 1]
    assert ROWS.request_ids[ROWS.gates] == ["gate"]
    assert ROWS.request_ids[ROWS.first] == ["prompt", "first"]
    assert ROWS.request_ids[ROWS.unfinished] == ["prompt", "first", "middle", "start"]
    assert ROWS.request_ids[ROWS.last] == ["last"]
    assert list(range(7))[ROWS.ends] == [6]
    assert list(range(7))[ROWS.fed] == [1, 2, 3, 4, 5, 6]


def test_positions_are_those_of_the_text_tokens_thought_about() -> None:
    assert text_positions(ROWS, NUM_COMPUTED, NUM_SCHEDULED).tolist() == [52, 4, 10, 20, 60, 40]


def test_passes_start_behind_the_text_token() -> None:
    assert position_offsets(ROWS).tolist() == [0, 0, 0, 3, 1, 4]


def test_start_is_fed_behind_the_text_and_thought_tokens_in_its_place() -> None:
    assert fed_places(ROWS, STARTS).tolist() == [14, 5, 11, 9, 15, 6]
