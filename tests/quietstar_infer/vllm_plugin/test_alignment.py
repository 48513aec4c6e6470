"""Thoughts of equal budget begin together, for which a request waits once, and never with its first
token.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.alignment import ThoughtAlignment
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from quietstar_infer.vllm_plugin.schedule_plan import ThoughtPlan, ThoughtStep, attached_plan
from quietstar_infer.vllm_plugin.scheduler import ThinkingScheduler
from tests.support.engine import SCHEDULES, Ask, Engine, EnginePool

pytestmark = pytest.mark.slow

TOKENS = 6
Plans = list[ThoughtPlan]


def first(index: int, budget: int = 8) -> ThoughtStep:
    return ThoughtStep.first(budget, index)


def test_a_request_waits_for_the_active_thoughts_and_then_never_again() -> None:
    alignment = ThoughtAlignment()
    active = {"b": ThoughtStep(3, 8, 0), "c": ThoughtStep(5, 8, 2)}
    assert not alignment.should_wait("a", first(0), active)  # its first token is not delayed
    assert alignment.should_wait("a", first(1), active)
    assert alignment.should_wait("a", first(1), {"b": ThoughtStep(7, 8, 0)})
    # "b" has ended the awaited thought and thinks about its next token.
    assert not alignment.should_wait("a", first(1), {"b": ThoughtStep(0, 8, 1)})
    assert not alignment.should_wait("a", first(2), {"b": ThoughtStep(3, 8, 1)})


def test_no_request_waits_for_thoughts_of_another_budget() -> None:
    assert not ThoughtAlignment().should_wait("a", first(1), {"b": ThoughtStep(3, 16, 0)})


def test_a_request_that_has_ended_is_forgotten() -> None:
    alignment = ThoughtAlignment()
    active = {"b": ThoughtStep(3, 8, 0)}
    assert alignment.should_wait("a", first(1), active)
    alignment.remove_request("a")
    assert not alignment.should_wait("a", first(1), {})
    alignment.remove_request("a")
    assert alignment.should_wait("a", first(1), active)


@pytest.fixture
def multi_step(engines: EnginePool, random_checkpoint: Callable[[str], Path]) -> Engine:
    options = ThinkingOptions(max_thought_burst=16, speculative_thoughts=0)
    return engines.get(random_checkpoint("llama"), options)


@pytest.fixture
def one_pass(engines: EnginePool, random_checkpoint: Callable[[str], Path]) -> Engine:
    return engines.get(random_checkpoint("llama"), **SCHEDULES["synchronous"])


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    """What the scheduler has told the workers, step by step."""
    sent: Plans = []
    schedule = ThinkingScheduler._update_after_schedule

    def noted(self: ThinkingScheduler, output: object) -> None:
        schedule(self, output)  # type: ignore[arg-type]
        sent.append(attached_plan(output))  # type: ignore[arg-type]

    monkeypatch.setattr(ThinkingScheduler, "_update_after_schedule", noted)
    return sent


def ask(budget: int, arrival: int = 0) -> Ask:
    sampling = {"max_tokens": TOKENS, "ignore_eos": True}
    return Ask([1, 5, 9], ThoughtParams(budget), sampling, arrival)


def one_after_the_other(budget: int) -> list[Ask]:
    return [ask(budget, arrival) for arrival in (0, 1, 3)]


def test_thoughts_of_requests_that_arrive_one_after_the_other_are_aligned(
    multi_step: Engine, plans: Plans
) -> None:
    multi_step.run(one_after_the_other(8))
    # By engine step: the indices of the thoughts that begin in it.
    begun = [{step.index for step in plan.steps.values() if step.is_first} for plan in plans]
    assert sum(0 in indices for indices in begun) == 3, (
        "a first thought begins as its request comes"
    )
    aligned = max(number for number, indices in enumerate(begun) if 0 in indices) + 1
    while not any(step.index == 1 for step in plans[aligned].steps.values() if step.is_first):
        aligned += 1
    for plan in plans[aligned:]:
        assert len({step.phase for step in plan.steps.values()}) <= 1
    assert {plan.num_passes for plan in plans[aligned:] if plan.steps} == {9}


@pytest.mark.parametrize(
    ("engine", "asks"),
    [
        pytest.param("one_pass", one_after_the_other(8)[:2], id="without multi-step"),
        pytest.param("multi_step", [ask(8), ask(0)], id="while another request does not think"),
        pytest.param("multi_step", [ask(8), ask(4)], id="for thoughts of another budget"),
    ],
)
def test_no_request_waits_where_nothing_is_gained(
    engine: str, asks: list[Ask], plans: Plans, request: pytest.FixtureRequest
) -> None:
    """A request is in every engine step from its first to its last."""
    running: Engine = request.getfixturevalue(engine)
    running.run(asks)
    thinking = {request_id for plan in plans for request_id in plan.steps}
    for request_id in thinking:
        steps = [number for number, plan in enumerate(plans) if request_id in plan.steps]
        assert steps == list(range(steps[0], steps[-1] + 1))
