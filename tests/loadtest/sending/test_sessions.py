"""Sessions: each turn has the earlier ones and their answers in its prompt."""

from dataclasses import replace

import pytest

from loadtest.errors import LoadTestError
from loadtest.sending.runner import prepare
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


def test_turns_need_a_closed_loop(url: str) -> None:
    with pytest.raises(LoadTestError, match="--turns needs closed loops"):
        prepare(plan_of(url, True, "poisson:5"))
