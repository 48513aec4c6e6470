"""Two replicas behind one server (data parallelism): requests that are spread over them are
answered as by one, and what they thought and counted comes from both.
"""

import json
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from server.errors import ExitStatus
from tests.invariants.server.test_golden_over_http import assert_whole_responses_repeat
from tests.support.load import error_of, eventually, health_until_gone, is_idle, metric, under_way
from tests.support.scrapes import scrape
from tests.support.servers import (
    CHAT_TEMPLATE,
    GOLDEN,
    RunningServer,
    running_server,
)

pytestmark = pytest.mark.slow

REPLICAS = 2
NUM_REQUESTS = 200
# From one batch to another.
TOLERANCE = 1e-3
TEXT = [2 + (7 * position) % 53 for position in range(300)]
LONG = {"prompt": "t5 t9", "max_tokens": 900, "thought_budget": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def replicated() -> Iterator[RunningServer]:
    """The model of `server`, on two replicas."""
    model = GOLDEN / "engine_greedy_n4" / "checkpoint"
    with running_server(
        model,
        *("--data-parallel-size", str(REPLICAS)),
        *("--served-model-name", "golden", "--allow-return-thoughts"),
        *("--chat-template", CHAT_TEMPLATE),
    ) as server:
        yield server


@pytest.fixture
def replicas(replicated: RunningServer) -> Iterator[httpx.Client]:
    """A client of that server, which is idle."""
    with httpx.Client(base_url=replicated.url, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def requests() -> list[dict[str, Any]]:
    """Of all kinds, each with a seed."""
    rng = random.Random(17)
    return [
        {
            "prompt": [rng.randrange(2, 60) for _ in range(rng.randrange(1, 40))],
            "max_tokens": rng.randrange(1, 16),
            # A greedy request has one choice.
            **rng.choice([{"n": 1, "temperature": 0}, {"n": rng.randrange(1, 4)}]),
            "seed": number,
            "thought_budget": rng.choice([0, 1, 2, 4, 8, 16]),
            "thought_threshold": rng.choice([0, 0, 0.01, 0.3]),
            "return_thoughts": rng.random() < 0.7,
            "return_token_ids": True,
            "stream": rng.random() < 0.3,
            "stream_options": None,
        }
        for number in range(NUM_REQUESTS)
    ]


def answer_of(client: httpx.Client, request: dict[str, Any]) -> Any:
    """What is the same of two answers to a request: tokens, thoughts, reasons and counts."""
    if request["stream"]:
        return streamed(client, request)
    answer = client.post("/v1/completions", json={**request, "stream_options": None})
    content = answer.raise_for_status().json()
    choices = [
        (choice["token_ids"], thought_tokens(choice.get("thoughts")), choice["finish_reason"])
        for choice in content["choices"]
    ]
    assert not any("thoughts_truncated" in choice for choice in content["choices"])
    return choices, content["usage"], content["quiet_star"]


def streamed(client: httpx.Client, request: dict[str, Any]) -> Any:
    body = {**request, "stream_options": {"include_usage": True}}
    tokens: dict[int, list[int]] = {index: [] for index in range(request["n"])}
    thoughts: dict[int, list[Any]] = {index: [] for index in range(request["n"])}
    reasons: dict[int, str] = {}
    with client.stream("POST", "/v1/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    *chunks, last = map(json.loads, lines)
    for chunk in chunks:
        (choice,) = chunk["choices"]
        tokens[choice["index"]] += choice["token_ids"]
        thoughts[choice["index"]] += thought_tokens(choice.get("thoughts"))
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    return tokens, thoughts, reasons, last["usage"], last["quiet_star"]


def thought_tokens(thoughts: list[dict[str, Any] | None] | None) -> list[list[int] | None]:
    return [thought["token_ids"] if thought else None for thought in thoughts or ()]


def answers(client: httpx.Client, bodies: list[dict[str, Any]]) -> list[Any]:
    """To requests that are sent at once."""
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(lambda body: answer_of(client, body), bodies))


def tokens_by_replica(url: str) -> list[float]:
    """Visible tokens that each replica has sampled."""
    samples = scrape(url).samples["vllm:generation_tokens_total"]
    by_engine = {dict(labels)["engine"]: value for labels, value in samples.items()}
    assert sorted(by_engine) == [str(rank) for rank in range(REPLICAS)]
    return [by_engine[rank] for rank in sorted(by_engine)]


def test_each_replica_repeats_the_recordings(replicated: RunningServer) -> None:
    for rank in range(REPLICAS):
        before = tokens_by_replica(replicated.url)
        headers = {"X-data-parallel-rank": str(rank)}
        assert_whole_responses_repeat("engine_greedy_n4", replicated.url, headers)
        after = tokens_by_replica(replicated.url)
        rose = [now > then for now, then in zip(after, before, strict=True)]
        assert rose == [index == rank for index in range(REPLICAS)]


def test_requests_are_answered_as_by_one_replica(
    replicas: httpx.Client, http: httpx.Client
) -> None:
    before = tokens_by_replica(str(replicas.base_url))
    bodies = requests()
    spread = answers(replicas, bodies)
    after = tokens_by_replica(str(replicas.base_url))
    # Each replica had a good part of them.
    shares = [now - then for now, then in zip(after, before, strict=True)]
    assert min(shares) > sum(shares) / 4
    for body, ours, theirs in zip(bodies, spread, answers(http, bodies), strict=True):
        assert ours == theirs, body


def test_the_choices_of_a_request_come_from_both(
    replicas: httpx.Client, http: httpx.Client
) -> None:
    body = {
        "prompt": "t5 t9 t3",
        "n": 8,
        "seed": 5,
        "max_tokens": 12,
        "ignore_eos": True,
        "thought_budget": 4,
        "return_thoughts": True,
        "return_token_ids": True,
        "stream": False,
    }
    before = tokens_by_replica(str(replicas.base_url))
    ours = answer_of(replicas, body)
    after = tokens_by_replica(str(replicas.base_url))
    assert [now - then for now, then in zip(after, before, strict=True)] == [4 * 12, 4 * 12]
    assert ours == answer_of(http, body)
    assert all(len(thoughts) == 12 for _, thoughts, _ in ours[0])


@pytest.mark.parametrize("threshold", [0, 0.05])
def test_scored_texts_have_the_scores_of_one_replica(
    replicas: httpx.Client, http: httpx.Client, threshold: float
) -> None:
    body = {
        "prompt": TEXT,
        "echo": True,
        "logprobs": 1,
        "max_tokens": 2,
        "seed": 3,
        "thought_budget": 3,
        "thought_threshold": threshold,
        "return_thoughts": True,
    }
    (ours,), (theirs,) = (
        client.post("/v1/completions", json=body).raise_for_status().json()["choices"]
        for client in (replicas, http)
    )
    scores = ours["logprobs"]["token_logprobs"]
    assert scores[1:] == pytest.approx(theirs["logprobs"]["token_logprobs"][1:], abs=TOLERANCE)
    thoughts = thought_tokens(ours["prompt_thoughts"])
    assert thoughts == thought_tokens(theirs["prompt_thoughts"])
    assert len(thoughts) == len(TEXT)


def test_metrics_are_summed_over_replicas(replicas: httpx.Client) -> None:
    names = {
        "visible": "quietstar:visible_tokens_total",
        "tokens": "quietstar:thought_tokens_total",
        "thoughts": "quietstar:thoughts_finished_total",
        "rows": "quietstar:engine_rows_total",
        "saved": "quietstar:thought_drafts_accepted_total",
        "weights": 'quietstar:mixing_weight_bucket{le="+Inf"',
    }
    before = {name: metric(replicas, full_name) for name, full_name in names.items()}
    body = {**LONG, "max_tokens": 20, "n": 4}
    spent = replicas.post("/v1/completions", json=body).raise_for_status().json()
    rose = {name: metric(replicas, full_name) - before[name] for name, full_name in names.items()}
    assert spent["usage"]["thought_tokens"] == rose["tokens"]
    assert rose["tokens"] == 4 * 20 * 8
    assert rose["visible"] == 4 * 20
    assert spent["quiet_star"]["thoughts"] == rose["thoughts"] == rose["weights"] == 4 * 20
    # A draft that was right has saved a pass.
    assert spent["quiet_star"]["passes"] == rose["rows"] + rose["saved"] == 4 * 20 * 9
    # vLLM's own have a label for the replica.
    for name in ("vllm:num_requests_waiting", "vllm:num_requests_running"):
        samples = scrape(str(replicas.base_url)).samples[name]
        assert {dict(labels)["engine"] for labels in samples} == {"0", "1"}


def test_a_client_that_leaves_frees_both_replicas(replicas: httpx.Client) -> None:
    with under_way(replicas, LONG, n=6, return_thoughts=True):
        pass
    eventually(lambda: is_idle(replicas))
    # What was thought for it is deleted everywhere.
    eventually(lambda: metric(replicas, "quietstar:recorded_thought_tokens") == 0)
    assert metric(replicas, "quietstar:thoughts_in_progress") == 0


def test_a_replica_that_is_killed_ends_the_server(replicated: RunningServer) -> None:
    """Last of this server. As docs/scale.md says: requests get an error, on all replicas."""
    engines = [
        child
        for child in psutil.Process(replicated.process.pid).children()
        if "EngineCore" in child.cmdline()[0]
    ]
    assert len(engines) == REPLICAS
    with httpx.Client(base_url=replicated.url, timeout=60) as client, ThreadPoolExecutor() as pool:
        body = {**LONG, "max_tokens": 900, "thought_budget": 16}
        asked = [pool.submit(client.post, "/v1/completions", json=body) for _ in range(4)]
        eventually(lambda: metric(client, "vllm:num_requests_running{") == 4)
        engines[1].send_signal(signal.SIGKILL)
        assert 503 in health_until_gone(replicated)
        for future in asked:
            error_of(future.result(), 500)
    assert replicated.process.wait(60) == ExitStatus.ENGINE_FAILED
    assert "python -m server: the engine died" in replicated.log.splitlines()
    _, alive = psutil.wait_procs(engines, timeout=30)
    assert not alive
