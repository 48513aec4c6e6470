"""What is observed of requests, with made-up outputs."""

from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from quietstar_infer.params import ThoughtParams
from server.metrics.requests import RequestMetrics, budget_class


@dataclass
class Times:
    num_generation_tokens: int
    first_token_latency: float = 0.25
    first_token_ts: float = 100.0
    last_token_ts: float = 103.0


@dataclass
class Choice:
    token_ids: list[int]
    finish_reason: str | None = None
    index: int = 0


@dataclass
class Output:
    outputs: list[Choice]
    finished: bool = False
    metrics: Times | None = field(default_factory=lambda: Times(7))


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A name of the test's own: all tests of a process share its metrics."""
    return f"model of {request.node.name}"


def value(model: str, name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"quietstar:{name}", {"model_name": model, **labels})


@pytest.mark.parametrize(
    ("budget", "label"),
    [
        *((0, "0"), (1, "1-2"), (2, "1-2"), (3, "3-4"), (4, "3-4"), (5, "5-8"), (8, "5-8")),
        *((9, "9-16"), (16, "9-16"), (17, "17+"), (1000, "17+")),
    ],
)
def test_classes_of_budgets(budget: int, label: str) -> None:
    assert budget_class(budget) == label


def test_all_classes_up_to_the_largest_budget_are_reported_from_the_start(model: str) -> None:
    RequestMetrics(model, max_budget=5)
    there = {
        label: value(model, "time_per_visible_token_seconds_count", budget=label)
        for label in ("0", "1-2", "3-4", "5-8", "9-16")
    }
    assert there == {"0": 0, "1-2": 0, "3-4": 0, "5-8": 0, "9-16": None}


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer(model: str, streaming: bool) -> None:
    watch = RequestMetrics(model, max_budget=16).watch(ThoughtParams(3))
    if streaming:
        watch.see(Output([Choice([1])]))
        watch.see(Output([Choice([1] * 5)]))
        assert value(model, "request_thought_tokens_count") == 0
        watch.see(Output([Choice([1], "length")], finished=True))
    else:
        watch.see(Output([Choice([1] * 7, "length")], finished=True))
    assert value(model, "request_thought_tokens_count") == 1
    assert value(model, "request_thought_tokens_sum") == 21
    assert value(model, "time_per_visible_token_seconds_sum", budget="3-4") == 3 / 6
    assert value(model, "time_to_first_visible_token_seconds_sum", budget="3-4") == 0.25


def test_each_choice_is_an_answer_with_its_own_token_budget(model: str) -> None:
    watch = RequestMetrics(model, 16).watch(ThoughtParams(2, token_budget=5))
    watch.see(Output([Choice([1, 1], index=0), Choice([1], index=1)]))
    watch.see(Output([Choice([1], "stop", index=1)]))
    watch.see(Output([Choice([1, 1], "length", index=0)], finished=True))
    assert value(model, "request_thought_tokens_count") == 2
    assert value(model, "request_thought_tokens_sum") == 5 + 4
    assert value(model, "time_per_visible_token_seconds_count", budget="1-2") == 1


def test_one_token_has_no_time_per_token(model: str) -> None:
    watch = RequestMetrics(model, 16).watch(ThoughtParams(0))
    watch.see(Output([Choice([1], "stop")], finished=True, metrics=Times(1)))
    assert value(model, "time_per_visible_token_seconds_count", budget="0") == 0
    assert value(model, "time_to_first_visible_token_seconds_count", budget="0") == 1


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_unanswered_requests_are_not_observed(model: str, reason: str) -> None:
    watch = RequestMetrics(model, 16).watch(ThoughtParams(1))
    watch.see(Output([Choice([1, 1])]))
    watch.see(Output([Choice([], reason)], finished=True))
    assert value(model, "request_thought_tokens_count") == 0
    assert value(model, "time_to_first_visible_token_seconds_count", budget="1-2") == 0


def test_without_vllms_statistics_tokens_are_counted_and_times_are_not(model: str) -> None:
    watch = RequestMetrics(model, 16).watch(ThoughtParams(1))
    watch.see(Output([Choice([1, 1], "stop")], finished=True, metrics=None))
    assert value(model, "request_thought_tokens_sum") == 2
    assert value(model, "time_to_first_visible_token_seconds_count", budget="1-2") == 0
