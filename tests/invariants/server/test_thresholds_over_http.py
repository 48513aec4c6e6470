"""Thinking where it pays, through the API: what a response says of it is what happened."""

import json
from statistics import median
from typing import Any

import httpx
import pytest

from tests.support.scrapes import scrape
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

PROMPT = "t5 t9 t13"
BUDGET = 3
SAMPLED = {"temperature": 1, "seed": 3, "thought_budget": BUDGET, "return_thoughts": True}
LONG = [2 + (7 * position) % 53 for position in range(60)]


def complete(http: httpx.Client, **body: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "max_tokens": 24, "ignore_eos": True} | body
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def chunks(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    body = {"prompt": PROMPT, "max_tokens": 24, "ignore_eos": True, "stream": True} | body
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def threshold(http: httpx.Client) -> float:
    """Above about half of the expected gains, and near none of them."""
    (choice,) = complete(http, **SAMPLED, thought_threshold=0)["choices"]
    gains: list[float] = sorted(thought["expected_gain"] for thought in choice["thoughts"])
    assert gains[0] < gains[-1]
    return median(gains)


def used(response: dict[str, Any]) -> int:
    tokens: int = response["usage"]["thought_tokens"]
    return tokens


def sampled(thoughts: list[dict[str, Any] | None]) -> list[list[int]]:
    """The thoughts that there were."""
    return [thought["token_ids"] for thought in thoughts if thought and thought["token_ids"]]


def check_counts(response: dict[str, Any]) -> None:
    """Usage, thoughts and passes are those of the thoughts that the response shows."""
    shown = [thought for choice in response["choices"] for thought in choice["thoughts"]]
    there = sampled(shown)
    tokens = sum(len(thought) for thought in there)
    assert used(response) == tokens
    assert response["quiet_star"]["thoughts"] == len(there)
    visible = response["usage"]["completion_tokens"]
    assert response["quiet_star"]["passes"] == visible + tokens + len(there)
    assert not any("thoughts_truncated" in choice for choice in response["choices"])


def test_it_thinks_where_the_expected_gain_is_above_the_threshold(
    http: httpx.Client, threshold: float
) -> None:
    answer = complete(http, **SAMPLED, thought_threshold=threshold)
    (choice,) = answer["choices"]
    assert answer["quiet_star"]["thought_threshold"] == threshold
    assert answer["quiet_star"]["gate"] == "entropy"
    assert 0 < answer["quiet_star"]["thoughts"] < 24
    check_counts(answer)
    for thought in choice["thoughts"]:
        if thought["expected_gain"] > threshold:
            assert len(thought["token_ids"]) == BUDGET
            assert thought["mixing_weight"] is not None
        else:
            assert thought["token_ids"] == []
            assert thought["text"] == ""
            assert thought["mixing_weight"] is None
            assert thought["base_logprob"] == thought["mixed_logprob"]


def test_a_stream_says_the_same_and_counts_as_it_goes(http: httpx.Client, threshold: float) -> None:
    body = {**SAMPLED, "thought_threshold": threshold}
    whole = complete(http, **body)
    options = {"include_usage": True, "continuous_usage_stats": True}
    *parts, last = chunks(http, **body, stream_options=options)
    shown: list[Any] = []
    for part in parts:
        shown += part["choices"][0]["thoughts"]
        there = sampled(shown)
        assert used(part) == sum(map(len, there))
        assert part["quiet_star"]["thoughts"] == len(there)
    assert sampled(shown) == sampled(whole["choices"][0]["thoughts"])
    assert parts[0]["quiet_star"] | last["quiet_star"] == whole["quiet_star"]
    assert used(last) == used(whole)


@pytest.mark.parametrize("stream", [False, True])
def test_prompts_and_choices_are_counted_each(
    http: httpx.Client, threshold: float, stream: bool
) -> None:
    body = {**SAMPLED, "prompt": [PROMPT, "t1 t2"], "n": 3, "thought_threshold": threshold}
    whole = complete(http, **body)
    check_counts(whole)
    if stream:
        *_, last = chunks(http, **body, stream_options={"include_usage": True})
        assert used(last) == used(whole)
        assert last["quiet_star"].items() <= whole["quiet_star"].items()


def test_a_token_budget_is_spent_where_thoughts_happen(
    http: httpx.Client, threshold: float
) -> None:
    body = {**SAMPLED, "thought_threshold": threshold, "n": 2}
    whole = complete(http, **body, thinking_token_budget=2 * BUDGET + 1)
    check_counts(whole)
    for choice in whole["choices"]:
        assert [len(thought) for thought in sampled(choice["thoughts"])] == [BUDGET, BUDGET, 1]
    # Not only the first tokens: those before which there was no thought have cost nothing.
    free = complete(http, **body)
    for choice, unlimited in zip(whole["choices"], free["choices"], strict=True):
        two = sampled(unlimited["thoughts"])[:2]
        assert sampled(choice["thoughts"])[:2] == two


def test_a_stop_string_ends_text_and_counts_at_the_same_token(
    http: httpx.Client, threshold: float
) -> None:
    body = {**SAMPLED, "thought_threshold": threshold}
    text = complete(http, **body)["choices"][0]["text"]
    answer = complete(http, **body, stop=text.split()[12])
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert len(choice["thoughts"]) == answer["usage"]["completion_tokens"] < 24
    check_counts(answer)


def test_a_threshold_above_every_gain_is_budget_0(http: httpx.Client) -> None:
    never = complete(http, **SAMPLED, thought_threshold=1e9)
    plain = complete(http, **(SAMPLED | {"thought_budget": 0}))
    assert never["choices"][0]["text"] == plain["choices"][0]["text"]
    assert used(never) == 0
    assert never["quiet_star"]["thoughts"] == 0
    assert never["quiet_star"]["passes"] == plain["quiet_star"]["passes"] == 24
    assert plain["quiet_star"]["gate"] is None


def test_scoring_thinks_where_it_pays(
    http: httpx.Client, server: RunningServer, threshold: float
) -> None:
    before = scrape(server.url)
    answer = complete(
        http,
        **SAMPLED,
        prompt=LONG,
        max_tokens=1,
        echo=True,
        logprobs=0,
        thought_threshold=threshold,
    )
    (choice,) = answer["choices"]
    first, *scored = choice["prompt_thoughts"]
    assert first is None
    for position, thought in enumerate(scored):
        assert bool(thought["token_ids"]) == (thought["expected_gain"] > threshold)
        logprob = choice["logprobs"]["token_logprobs"][position + 1]
        assert thought["mixed_logprob"] == pytest.approx(logprob, abs=1e-4)
    there = sampled(scored)
    assert 0 < len(there) < len(scored)
    told = answer["quiet_star"]
    assert told["prompt_thoughts"] == len(there)
    assert told["prompt_thought_tokens"] == BUDGET * len(there)
    assert told["prompt_passes"] == len(scored) + (BUDGET + 1) * len(there)
    # A draft that was right has saved a pass.
    names = ("quietstar:engine_rows_total", "quietstar:thought_drafts_accepted_total")
    now = scrape(server.url)
    rows = sum(now.value(name) - before.value(name) for name in names)
    # And a prefill of each.
    assert 0 <= rows - told["prompt_passes"] - told["passes"] <= 2


def test_metrics_count_what_was_skipped(
    http: httpx.Client, server: RunningServer, threshold: float
) -> None:
    before = scrape(server.url)
    answer = complete(http, **SAMPLED, thought_threshold=threshold)
    now = scrape(server.url)

    def grown(name: str, **labels: str) -> float:
        name = f"quietstar:{name}"
        return now.value(name, **labels) - before.value(name, **labels)

    thoughts = answer["quiet_star"]["thoughts"]
    assert grown("thoughts_finished_total") == thoughts
    assert grown("thoughts_skipped_total") == 24 - thoughts
    assert grown("expected_gain_nats_bucket", le="+Inf") == 24
    assert grown("measured_minus_expected_gain_nats_bucket", le="+Inf") == thoughts
    rows = grown("engine_rows_total") + grown("thought_drafts_accepted_total")
    assert rows == answer["quiet_star"]["passes"]
    assert grown("time_per_visible_token_seconds_count", budget="3-4 adaptive") == 1
    assert grown("time_per_visible_token_seconds_count", budget="3-4") == 0
    assert grown("request_thought_tokens_sum") == used(answer)
