"""Which passes of an engine step are decode-only. That answers do not depend on it:
tests/invariants/engine/test_alone_equals_batched.py.
"""

import pytest

from quietstar_infer.vllm_plugin.multi_step import StepPasses, split_passes
from quietstar_infer.vllm_plugin.schedule_plan import ThoughtPlan, ThoughtStep


def plan_of(phases: list[int], num_passes: int, budget: int = 8) -> ThoughtPlan:
    steps = {str(row): ThoughtStep(phase, budget, 0) for row, phase in enumerate(phases)}
    return ThoughtPlan(steps, {}, [], num_passes)


@pytest.mark.parametrize(
    ("phases", "num_passes", "expected"),
    [
        pytest.param([0], 1, StepPasses(False, 0, True), id="START"),
        pytest.param([8], 1, StepPasses(False, 0, True), id="END"),
        pytest.param([0], 9, StepPasses(True, 7, True), id="a whole thought"),
        pytest.param([0], 4, StepPasses(True, 3, False), id="without END"),
        pytest.param([5], 4, StepPasses(False, 3, True), id="without START"),
        pytest.param([2], 4, StepPasses(False, 4, False), id="without either"),
        pytest.param([2], 1, StepPasses(False, 1, False), id="one decode-only pass"),
        pytest.param([2, 5], 4, StepPasses(False, 3, True), id="one row ends"),
        pytest.param([0, 2], 4, StepPasses(True, 3, False), id="one row begins"),
        pytest.param([], 1, StepPasses(False, 0, True), id="no thoughts"),
    ],
)
def test_split(phases: list[int], num_passes: int, expected: StepPasses) -> None:
    assert split_passes(plan_of(phases, num_passes), len(phases), is_ahead=False) == expected


def test_a_budget_of_one_has_no_decode_only_pass() -> None:
    plan = plan_of([0], num_passes=2, budget=1)
    assert split_passes(plan, 1, is_ahead=False) == StepPasses(True, 0, True)


def test_a_batch_with_another_request_is_prepared_by_vllm() -> None:
    plan = plan_of([2], num_passes=1)
    assert split_passes(plan, 2, is_ahead=False) == StepPasses(False, 0, True)


@pytest.mark.parametrize(
    ("num_passes", "expected"), [(1, StepPasses(False, 0, True)), (4, StepPasses(False, 3, True))]
)
def test_asynchronous_scheduling_samples_after_every_engine_step(
    num_passes: int, expected: StepPasses
) -> None:
    assert split_passes(plan_of([2], num_passes), 1, is_ahead=True) == expected
