"""The requests that are sent."""

import json

import pytest

from loadtest.client.answer import Counting
from loadtest.client.requests import RequestMaker
from loadtest.errors import LoadTestError
from loadtest.sending.runner import prepare
from loadtest.traffic.budgets import parse_budgets
from loadtest.traffic.plan import Target
from loadtest.traffic.thresholds import crossed, parse_thresholds
from tests.support.loadtest.runs import small_plan


@pytest.mark.parametrize(
    ("field", "option"), [("thought_budget", "--budgets"), ("thought_threshold", "--thresholds")]
)
def test_fields_that_the_load_tester_sets_itself_are_refused(
    url: str, field: str, option: str
) -> None:
    with pytest.raises(LoadTestError, match=rf"{field} cannot be set.*{option}"):
        prepare(small_plan(url, target=Target(url, extra_body={field: 3})))


@pytest.mark.parametrize(
    ("budget", "threshold", "sent"),
    [
        ("0", None, {"thought_budget": 0}),
        ("4", None, {"thought_budget": 4}),
        ("4", "0", {"thought_budget": 4, "thought_threshold": 0.0}),
        ("4", "0.1", {"thought_budget": 4, "thought_threshold": 0.1}),
        ("0", "0.1", {"thought_budget": 0}),
        ("none", "0.1", {"thought_threshold": 0.1}),
        ("none", None, {}),
    ],
)
def test_a_threshold_is_sent_only_where_one_is_asked_for(
    url: str, budget: str, threshold: str | None, sent: dict[str, float]
) -> None:
    (mix,) = crossed(parse_budgets(budget), parse_thresholds(threshold))
    source = prepare(small_plan(url)).source
    maker = RequestMaker(
        Target(url), "test", Counting.CHUNKS, {}, source, mix, seed=0, cell=0, repeat=0
    )
    body = json.loads(maker.make(0, measured=True).body)
    assert {name: value for name, value in body.items() if name.startswith("thought_")} == sent
    # Thoughts are sampled.
    assert ("seed" in body) is bool(sent)
