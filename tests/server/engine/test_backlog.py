"""Which requests count as waiting, and for how much."""

from types import SimpleNamespace
from typing import Any

from quietstar_infer.params import ThoughtParams
from server.engine.backlog import Backlog, PassCounts


def state(name: str, tokens: int, most: int) -> Any:
    """What vLLM's front end knows of a request."""
    return SimpleNamespace(
        external_req_id=name,
        is_prefilling=tokens == 0,
        max_tokens_param=most,
        detokenizer=SimpleNamespace(num_output_tokens=lambda: tokens),
    )


def remaining(params: ThoughtParams, tokens: int, most: int) -> int:
    return (params.budget + 1) * (most - tokens)


def backlog_of(**budgets: int) -> Backlog:
    backlog = Backlog()
    for name, budget in budgets.items():
        backlog.enter(name, ThoughtParams(budget))
    return backlog


def test_a_budget_of_16_is_the_work_of_17_requests() -> None:
    backlog = backlog_of(thinks=16, plain=0)
    backlog.set_waiting(0, 2)
    states = {"a": state("thinks", 0, 10), "b": state("plain", 0, 10)}
    assert backlog.passes(states, remaining) == PassCounts(queued=170 + 10, running=0)


def test_the_last_to_arrive_wait() -> None:
    backlog = backlog_of(first=1, second=2, third=3)
    states = {
        "a": state("first", 4, 10),
        "b": state("second", 0, 10),
        "c": state("third", 0, 10),
    }
    assert backlog.passes(states, remaining) == PassCounts(queued=0, running=12 + 30 + 40)
    backlog.set_waiting(0, 1)
    assert backlog.passes(states, remaining) == PassCounts(queued=40, running=12 + 30)


def test_requests_wait_in_each_of_several_engines() -> None:
    backlog = backlog_of(one=0, other=1)
    states = {"a": state("one", 0, 5), "b": state("other", 0, 5)}
    backlog.set_waiting(0, 1)
    backlog.set_waiting(1, 1)
    assert backlog.passes(states, remaining) == PassCounts(queued=15, running=0)
    # A preempted request waits and has begun.
    backlog.set_waiting(1, 5)
    assert backlog.passes(states, remaining) == PassCounts(queued=15, running=0)


def test_what_scores_a_prompt_counts_with_its_request() -> None:
    backlog = backlog_of(asked=3)
    states = {"a": state("asked-score-prefill", 0, 1), "b": state("asked-score-17", 0, 8)}
    assert backlog.passes(states, remaining) == PassCounts(queued=0, running=4 + 32)
    backlog.leave("asked")
    assert backlog.passes(states, remaining) == PassCounts(0, 0)
