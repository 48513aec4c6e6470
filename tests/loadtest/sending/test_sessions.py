"""Sessions: each turn has the earlier ones and their answers in its prompt."""

from dataclasses import replace

import pytest

from loadtest.testserver import Behaviour, running
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import Extent, Plan, PromptPlan, Target
from tests.support.loadtest.runs import run_one, small_plan

pytestmark = pytest.mark.usefixtures("reused_workers")

TURNS, PROMPT, ANSWER, TEMPLATE = 3, 8, 4, 3
PROMPTS = PromptPlan(input_lengths=Constant(PROMPT), output_lengths=Constant(ANSWER), turns=TURNS)


def plan_of(url: str, chat: bool, load: str = "closed:2") -> Plan:
    return small_plan(url, load, target=Target(url, chat=chat), prompts=PROMPTS, requests=12)


@pytest.mark.slow
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_turn_has_the_earlier_ones_before_it(url: str, chat: bool, workers: int) -> None:
    cell = run_one(replace(plan_of(url, chat), workers=workers))
    assert {record.failure for record in cell.records} == {None}
    words = PROMPT - TEMPLATE * chat
    seen = sorted((record.index, record.turn, record.prompt_tokens) for record in cell.records)
    assert seen == [
        (index, index % TURNS, PROMPT + index % TURNS * (words + ANSWER)) for index in range(12)
    ]
    # A turn is due when the one before is answered.
    by_index = {record.index: record for record in cell.records}
    for record in cell.records:
        if record.turn:
            assert record.scheduled >= (by_index[record.index - 1].finished or 0.0)


@pytest.mark.slow
def test_sessions_that_begin_in_the_warm_up_belong_to_it() -> None:
    with running(Behaviour(first=0.05)) as url:
        extent = Extent(seconds=0.5, warmup=0.3)
        cell = run_one(replace(plan_of(url, True), extent=extent))
    measured = sorted(record.index for record in cell.records if not record.warmup)
    assert measured[:6] == list(range(6))
    assert {record.turn for record in cell.records if record.index in (0, 3)} == {0}
    assert all(record.scheduled < 0.8 for record in cell.records)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_of_an_open_loop_begin_when_they_are_due(url: str, workers: int) -> None:
    """30 requests per second in sessions of three are 10 sessions per second."""
    cell = run_one(replace(plan_of(url, True, "constant:30"), workers=workers))
    assert {record.failure for record in cell.records} == {None}
    words = PROMPT - TEMPLATE
    by_index = {record.index: record for record in cell.records}
    assert sorted(by_index) == list(range(12))
    for index, record in by_index.items():
        session, turn = divmod(index, TURNS)
        assert record.turn == turn
        assert record.prompt_tokens == PROMPT + turn * (words + ANSWER)
        if turn == 0:
            assert record.scheduled == pytest.approx(session / 10)
        else:
            before = by_index[index - 1]
            # The next turn is due when the one before is answered.
            assert before.finished is not None
            assert record.scheduled >= before.finished
    assert cell.asked_rate == 30
    # The last answer counts.
    assert cell.window[1] > max(record.finished or 0.0 for record in cell.records)


@pytest.mark.slow
def test_turns_that_are_due_after_the_measured_part_of_an_open_loop_are_not_sent() -> None:
    with running(Behaviour(first=0.3)) as url:
        plan = plan_of(url, True, "constant:30")
        cell = run_one(replace(plan, extent=Extent(seconds=0.5, warmup=0.2)))
    start, end = cell.window
    assert (start, end) == pytest.approx((0.2, 0.7))
    assert all(record.scheduled < end for record in cell.records)
    measured = [record for record in cell.records if not record.warmup]
    # Sessions that begin in the warm-up belong to it, whenever their turns are due.
    assert all(record.scheduled >= start for record in measured)
    early = [record for record in cell.records if record.warmup]
    assert {record.turn for record in early} >= {0, 1}
    assert {record.index for record in early} <= set(range(-2 * TURNS, 0))
    # No measured session gets to its third turn: two answers take longer than the part.
    assert {record.turn for record in measured} == {0, 1}
