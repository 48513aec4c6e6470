"""What is observed of requests, with made-up outputs."""

from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from quietstar_infer.params import ThoughtParams
from server.metrics.requests import RequestMetrics, budget_class, request_class


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


def see(
    model: str, params: ThoughtParams, *outputs: Output, thought_tokens: tuple[int, ...] = (0,)
) -> None:
    """See outputs of a prompt whose choices have taken so many thought tokens."""
    metrics = RequestMetrics(model, max_budget=16)
    for output in outputs:
        metrics.observe(params, output, thought_tokens.__getitem__)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer(model: str, streaming: bool) -> None:
    params = ThoughtParams(3)
    if streaming:
        see(model, params, Output([Choice([1])]), Output([Choice([1] * 5)]), thought_tokens=(18,))
        assert value(model, "request_thought_tokens_count") == 0
        see(model, params, Output([Choice([1], "length")], finished=True), thought_tokens=(21,))
    else:
        see(model, params, Output([Choice([1] * 7, "length")], finished=True), thought_tokens=(21,))
    assert value(model, "request_thought_tokens_count") == 1
    assert value(model, "request_thought_tokens_sum") == 21
    assert value(model, "time_per_visible_token_seconds_sum", budget="3-4") == 3 / 6
    assert value(model, "time_to_first_visible_token_seconds_sum", budget="3-4") == 0.25


def test_each_choice_is_an_answer(model: str) -> None:
    see(
        model,
        ThoughtParams(2, token_budget=5),
        Output([Choice([1, 1], index=0), Choice([1], index=1)]),
        Output([Choice([1], "stop", index=1)]),
        Output([Choice([1, 1], "length", index=0)], finished=True),
        thought_tokens=(5, 4),
    )
    assert value(model, "request_thought_tokens_count") == 2
    assert value(model, "request_thought_tokens_sum") == 5 + 4
    assert value(model, "time_per_visible_token_seconds_count", budget="1-2") == 1


def test_requests_with_a_gate_are_classes_of_their_own(model: str) -> None:
    assert request_class(9, is_gated=False) == "9-16"
    assert request_class(9, is_gated=True) == "9-16 adaptive"
    labels = ("0", "1-2", "1-2 adaptive", "9-16 adaptive", "0 adaptive")

    def counts() -> list[float | None]:
        return [value(model, "time_per_visible_token_seconds_count", budget=b) for b in labels]

    RequestMetrics(model, max_budget=16)
    assert counts() == [0, 0, 0, 0, None]
    for params in (ThoughtParams(2, threshold=0.1), ThoughtParams(0, threshold=0.1)):
        see(model, params, Output([Choice([1], "stop")], finished=True))
    assert counts() == [1, 0, 1, 0, None]


def test_one_token_has_no_time_per_token(model: str) -> None:
    see(model, ThoughtParams(0), Output([Choice([1], "stop")], finished=True, metrics=Times(1)))
    assert value(model, "time_per_visible_token_seconds_count", budget="0") == 0
    assert value(model, "time_to_first_visible_token_seconds_count", budget="0") == 1


def test_a_given_thought_is_in_the_time_to_the_first_token(model: str) -> None:
    params = ThoughtParams(0, first_thought=(5,) * 12)
    see(model, params, Output([Choice([1, 1], "stop")], finished=True, metrics=Times(2)))
    for name, label in (("time_to_first_visible_token", "9-16"), ("time_per_visible_token", "0")):
        assert value(model, f"{name}_seconds_count", budget=label) == 1


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_unanswered_requests_are_not_observed(model: str, reason: str) -> None:
    unanswered = Output([Choice([], reason)], finished=True)
    see(model, ThoughtParams(1), Output([Choice([1, 1])]), unanswered)
    assert value(model, "request_thought_tokens_count") == 0
    assert value(model, "time_to_first_visible_token_seconds_count", budget="1-2") == 0


def test_without_vllms_statistics_tokens_are_counted_and_times_are_not(model: str) -> None:
    answered = Output([Choice([1, 1], "stop")], finished=True, metrics=None)
    see(model, ThoughtParams(1), answered, thought_tokens=(2,))
    assert value(model, "request_thought_tokens_sum") == 2
    assert value(model, "time_to_first_visible_token_seconds_count", budget="1-2") == 0
