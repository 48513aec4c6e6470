"""/metrics of a real server, compared with its responses."""

import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from quietstar_infer.vllm_plugin.metrics import MIXING_WEIGHT_BOUNDS
from tests.support.scrapes import Scrape, scrape
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

COUNTERS = (
    *("visible_tokens", "thought_tokens", "thoughts_finished"),
    *("engine_passes", "engine_rows", "engine_thinking_rows"),
)


def body(budget: int, max_tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "prompt": [1, 5, 9],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "seed": 7,
        "thought_budget": budget,
    } | fields


def complete(server: RunningServer, budget: int, max_tokens: int, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(
        f"{server.url}/v1/completions", json=body(budget, max_tokens, **fields), timeout=120
    )
    content: dict[str, Any] = answer.raise_for_status().json()
    return content


def thought_tokens(answer: dict[str, Any]) -> int:
    tokens: int = answer["usage"]["thought_tokens"]
    return tokens


def eventually(server: RunningServer, holds: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape of which a condition holds: counts are a moment later than responses."""
    deadline = time.monotonic() + 60
    while not holds(now := scrape(server.url)):
        assert time.monotonic() < deadline, now.samples
        time.sleep(0.05)
    return now


def grown(before: Scrape, now: Scrape) -> dict[str, float]:
    """By how much the counters have grown; as if no draft had saved a request a pass."""

    def total(name: str) -> float:
        name = f"quietstar:{name}_total"
        return now.value(name) - before.value(name)

    saved = total("thought_drafts_accepted")
    return {name: total(name) + (saved if name.startswith("engine_") else 0) for name in COUNTERS}


def test_counts_equal_those_of_the_responses(small_server: RunningServer) -> None:
    before = scrape(small_server.url)
    answers = [
        complete(small_server, 0, 5),
        complete(small_server, 3, 4),
        complete(small_server, 16, 2),
        complete(small_server, 4, 3, thinking_token_budget=6),
        complete(small_server, 2, 3, n=2, temperature=1),
    ]
    # Budgets in turn: 0 ×5, 3 ×4, 16 ×2, then 4 + 2 + 0, then twice 2 ×3.
    assert [thought_tokens(answer) for answer in answers] == [0, 12, 32, 6, 12]
    expected = {
        "visible_tokens": 5 + 4 + 2 + 3 + 6,
        "thought_tokens": 12 + 32 + 6 + 12,
        "thoughts_finished": 4 + 2 + 2 + 6,
        "engine_rows": 5 + 4 * 4 + 2 * 17 + (5 + 3 + 1) + 2 * 3 * 3,
        "engine_thinking_rows": 4 * 4 + 2 * 17 + (5 + 3) + 2 * 3 * 3,
    }
    now = eventually(small_server, lambda now: expected.items() <= grown(before, now).items())
    # Two choices share their passes, but for those before the second arrives.
    alone = expected["engine_rows"] - 3 * 3
    assert alone <= grown(before, now)["engine_passes"] <= expected["engine_rows"]
    answered = "quietstar:request_thought_tokens"
    assert now.value(f"{answered}_sum") - before.value(f"{answered}_sum") == 62
    assert now.value(f"{answered}_count") - before.value(f"{answered}_count") == 6


@pytest.mark.parametrize(("budget", "label"), [(0, "0"), (2, "1-2"), (9, "9-16")])
def test_times_are_observed_by_class_of_budget(
    small_server: RunningServer, budget: int, label: str
) -> None:
    name = "quietstar:time_{}_seconds_{}".format
    before = scrape(small_server.url)
    begun = time.monotonic()
    complete(small_server, budget, 6, stream=False)
    took = time.monotonic() - begun
    now = scrape(small_server.url)
    for what in ("per_visible_token", "to_first_visible_token"):
        classes = before.samples[name(what, "count")]
        changed = {
            dict(key)["budget"]
            for key, count in classes.items()
            if now.samples[name(what, "count")][key] != count
        }
        assert changed == {label}
    per_token, to_first = (
        now.value(name(what, "sum"), budget=label) - before.value(name(what, "sum"), budget=label)
        for what in ("per_visible_token", "to_first_visible_token")
    )
    assert per_token > 0
    assert to_first > 0
    assert to_first + 5 * per_token < took + 0.001


def test_mixing_weights_equal_those_of_the_thoughts(small_server: RunningServer) -> None:
    before = scrape(small_server.url)
    answer = complete(small_server, 2, 40, temperature=1, return_thoughts=True)
    weights = [thought["mixing_weight"] for thought in answer["choices"][0]["thoughts"]]
    assert min(weights) < 0 or max(weights) > 1
    bucket = "quietstar:mixing_weight_bucket"
    expected = {str(bound): sum(w <= bound for w in weights) for bound in MIXING_WEIGHT_BOUNDS}
    expected["+Inf"] = 40

    def buckets(now: Scrape) -> dict[str, float]:
        return {le: now.value(bucket, le=le) - before.value(bucket, le=le) for le in expected}

    eventually(small_server, lambda now: buckets(now) == expected)


def test_an_abandoned_thought_is_aborted(small_server: RunningServer) -> None:
    aborted = "quietstar:thoughts_aborted_total"
    before = scrape(small_server.url)

    def has_moved(now: Scrape) -> bool:
        return now.value(aborted, reason="abort") > before.value(aborted, reason="abort")

    def is_idle(now: Scrape) -> bool:
        return now.value("vllm:num_requests_running") == 0

    # One of 17 passes lies between two thoughts: a client that leaves then aborts none.
    for attempt in range(20):
        # Of the same thoughts again, each would be drafted whole, and take a single pass.
        stream = body(16, 200, stream=True, seed=attempt)
        url = f"{small_server.url}/v1/completions"
        with httpx.stream("POST", url, json=stream, timeout=60) as response:
            next(response.iter_lines())
        now = eventually(small_server, is_idle)
        if has_moved(now):
            break
    now = eventually(small_server, lambda now: now.value("quietstar:thoughts_in_progress") == 0)
    assert has_moved(now)
    # Thought tokens of aborted requests are in no answer.
    assert grown(before, now)["thought_tokens"] > 0
    count = "quietstar:request_thought_tokens_count"
    assert now.value(count) == before.value(count)


def test_limits_are_reported(small_server: RunningServer) -> None:
    now = scrape(small_server.url)
    assert now.value("quietstar:max_thought_budget", model_name="small") == 16
    assert now.value("quietstar:default_thought_budget") == 5


def test_vllms_metrics_are_all_reported(small_server: RunningServer) -> None:
    before = scrape(small_server.url)
    complete(small_server, 1, 7)
    name = "vllm:generation_tokens_total"
    eventually(small_server, lambda now: now.value(name) - before.value(name) == 7)
    assert len([name for name in before.families if name.startswith("vllm:")]) > 40


@pytest.mark.parametrize(
    "name",
    [
        # The Gateway API's inference extension, llm-d, production-stack.
        *("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"),
        *("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
        # Balancers and autoscalers that weigh requests by their thoughts.
        *("quietstar:queued_passes", "quietstar:running_passes"),
    ],
)
def test_what_gateways_read_has_its_name(small_server: RunningServer, name: str) -> None:
    assert scrape(small_server.url).value(name, model_name="small") >= 0


def test_gateways_can_read_the_size_of_the_cache(small_server: RunningServer) -> None:
    (labels,) = map(dict, scrape(small_server.url).samples["vllm:cache_config_info"])
    assert int(labels["block_size"]) == 32
    assert int(labels["num_gpu_blocks"]) > 0


def test_counts_of_a_stopped_engine_are_reported_as_last_known(small_server: RunningServer) -> None:
    """Stopped, not dead: a dead engine ends the server."""
    eventually(small_server, lambda now: now.value("quietstar:thoughts_in_progress") == 0)
    before = scrape(small_server.url)
    children = psutil.Process(small_server.process.pid).children(recursive=True)
    for child in children:
        child.send_signal(signal.SIGSTOP)
    try:
        stopped = scrape(small_server.url, timeout=30)
    finally:
        for child in children:
            child.send_signal(signal.SIGCONT)
    assert grown(before, stopped) == dict.fromkeys(COUNTERS, 0)
    assert stopped.value("quietstar:engine_counts_age_seconds") > 1
    eventually(small_server, lambda now: now.value("quietstar:engine_counts_age_seconds") < 1)
    assert thought_tokens(complete(small_server, 2, 2)) == 4
