"""Thoughts of the same length begin together, which costs a request one wait and never its first
token.
"""

from pathlib import Path

import pytest

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.alignment import Lockstep
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from quietstar_infer.vllm_plugin.scheduler import ThinkingScheduler
from quietstar_infer.vllm_plugin.schedule_plan import ThoughtPlan, ThoughtStep, attached_thoughts
from tests.support.checkpoints import write_random_checkpoint
from tests.support.engine import Ask, thinking_engine

TOKENS = 6
Plans = list[ThoughtPlan]


def first(index: int, budget: int = 8) -> ThoughtStep:
    return ThoughtStep.first(budget, index)


def test_a_request_waits_for_the_thoughts_under_way_and_then_never_again() -> None:
    lockstep = Lockstep()
    going = {"b": ThoughtStep(3, 8, 0), "c": ThoughtStep(5, 8, 2)}
    assert not lockstep.is_held("a", first(0), going)  # its first token is not delayed
    assert lockstep.is_held("a", first(1), going)
    assert lockstep.is_held("a", first(1), {"b": ThoughtStep(7, 8, 0)})
    # "b" is done with what was awaited: it thinks about its next token.
    assert not lockstep.is_held("a", first(1), {"b": ThoughtStep(0, 8, 1)})
    assert not lockstep.is_held("a", first(2), {"b": ThoughtStep(3, 8, 1)})


def test_nobody_waits_for_thoughts_of_another_length() -> None:
    assert not Lockstep().is_held("a", first(1), {"b": ThoughtStep(3, 16, 0)})


def test_who_ended_is_forgotten() -> None:
    lockstep = Lockstep()
    going = {"b": ThoughtStep(3, 8, 0)}
    assert lockstep.is_held("a", first(1), going)
    lockstep.forget("a")
    assert not lockstep.is_held("a", first(1), {})
    lockstep.forget("a")
    assert lockstep.is_held("a", first(1), going)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("lockstep"), "llama")


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    """What the scheduler has told the workers, step by step."""
    seen: Plans = []
    schedule = ThinkingScheduler._update_after_schedule

    def noted(self: ThinkingScheduler, output: object) -> None:
        schedule(self, output)  # type: ignore[arg-type]
        seen.append(attached_thoughts(output))  # type: ignore[arg-type]

    monkeypatch.setattr(ThinkingScheduler, "_update_after_schedule", noted)
    return seen


def ask(budget: int, arrival: int = 0) -> Ask:
    sampling = {"max_tokens": TOKENS, "ignore_eos": True}
    return Ask([1, 5, 9], ThoughtParams(budget), sampling, arrival)


def one_after_the_other(budget: int) -> list[Ask]:
    return [ask(budget, arrival) for arrival in (0, 1, 3)]


def test_requests_that_arrive_one_after_the_other_think_in_step(
    checkpoint: Path, plans: Plans
) -> None:
    with thinking_engine(checkpoint, ThinkingOptions(max_thought_burst=16)) as engine:
        engine.run(one_after_the_other(8))
    # By step of the engine, who begins the thought before which of its tokens.
    begun = [{step.index for step in plan.steps.values() if step.is_first} for plan in plans]
    assert sum(0 in indices for indices in begun) == 3, (
        "a first thought begins as its request comes"
    )
    in_step = max(number for number, indices in enumerate(begun) if 0 in indices) + 1
    while not any(step.index == 1 for step in plans[in_step].steps.values() if step.is_first):
        in_step += 1
    for plan in plans[in_step:]:
        assert len({step.phase for step in plan.steps.values()}) <= 1
    assert {plan.num_passes for plan in plans[in_step:] if plan.steps} == {9}


@pytest.mark.parametrize(
    ("burst", "others"),
    [
        pytest.param(1, [], id="without bursts"),
        pytest.param(16, [ask(0)], id="while somebody speaks"),
        pytest.param(16, [ask(4)], id="for thoughts of another length"),
    ],
)
def test_nobody_waits_where_there_is_nothing_to_gain(
    checkpoint: Path, plans: Plans, burst: int, others: list[Ask]
) -> None:
    """A request that thinks or speaks is in every step from its first to its last."""
    asks = one_after_the_other(8)[:2] if not others else [ask(8), *others]
    with thinking_engine(checkpoint, ThinkingOptions(max_thought_burst=burst)) as engine:
        engine.run(asks)
    thinking = {request_id for plan in plans for request_id in plan.steps}
    for request_id in thinking:
        steps = [number for number, plan in enumerate(plans) if request_id in plan.steps]
        assert steps == list(range(steps[0], steps[-1] + 1))
