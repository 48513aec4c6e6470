"""What the scheduler tells the workers."""

import pickle

import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from quietstar_infer.vllm_plugin.schedule_plan import (
    ThinkingRequest,
    ThoughtPlan,
    ThoughtStep,
    attach_plan,
    attached_plan,
    later_pass,
)


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_the_passes_of_a_thought(budget: int) -> None:
    passes = [ThoughtStep.first(budget, index=3).next(number) for number in range(budget + 1)]
    assert [step.is_first for step in passes] == [True, *[False] * budget]
    assert [step.is_last for step in passes] == [*[False] * budget, True]
    # START and END share the first and the last pass with another token.
    assert [step.num_extra_tokens for step in passes] == [1, *[0] * (budget - 1), 1]
    assert [step.remaining_passes for step in passes] == list(range(budget + 1, 0, -1))
    # Counted from x_p: START lies 1 behind it, t_1 2 behind it, and so on.
    assert [step.offset for step in passes] == [0, *range(2, budget + 2)]
    decode_only = [passes[0].is_decode_only_after(number) for number in range(budget + 1)]
    assert decode_only == [False, *[True] * (budget - 1), False]


def plan_of(budget: int) -> ThoughtPlan:
    request = ThinkingRequest(
        seed=7, temperature=0.5, threshold=0.0, record_key="key", forced_tokens=()
    )
    return ThoughtPlan({"a": ThoughtStep.first(budget, 0)}, {"a": request}, ["stop"], num_passes=3)


def test_the_plan_travels_with_the_engine_step() -> None:
    output = SchedulerOutput.make_empty()
    attach_plan(output, plan_of(budget=4))
    assert attached_plan(pickle.loads(pickle.dumps(output))) == plan_of(budget=4)


def test_a_later_pass_changes_nothing_in_the_batch() -> None:
    output = SchedulerOutput.make_empty()
    output.num_scheduled_tokens = {"a": 9}
    output.finished_req_ids = {"b"}
    attach_plan(output, plan_of(budget=2))
    later = later_pass(output, 2)
    assert later.num_scheduled_tokens == {"a": 2}  # t_2 and END
    assert later.total_num_scheduled_tokens == 2
    assert not later.finished_req_ids
    assert attached_plan(later) == ThoughtPlan({"a": ThoughtStep(2, 2, 0)}, {}, [])
