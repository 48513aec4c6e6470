"""Two stages of one model (pipeline parallelism): requests are answered as by one, and what they
thought and counted comes from the last.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from server.errors import ExitStatus
from tests.invariants.server.test_data_parallel import answers, requests
from tests.invariants.server.test_golden_over_http import assert_whole_responses_repeat
from tests.support.load import error_of, eventually, health_until_gone, is_idle, metric, under_way
from tests.support.servers import GOLDEN, RunningServer, running_server

pytestmark = pytest.mark.slow

LONG = {"prompt": "t5 t9", "max_tokens": 400, "thought_budget": 16, "ignore_eos": True}


@pytest.fixture(scope="module")
def staged() -> Iterator[RunningServer]:
    """The model of `server`, on two stages with a layer each."""
    model = GOLDEN / "engine_greedy_n4" / "checkpoint"
    options = ("--pipeline-parallel-size", "2", "--allow-return-thoughts")
    with running_server(
        model, *options, environment={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    ) as server:
        yield server


@pytest.fixture
def stages(staged: RunningServer) -> Iterator[httpx.Client]:
    """A client of that server, which is idle."""
    with httpx.Client(base_url=staged.url, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def test_the_recordings_are_repeated(staged: RunningServer) -> None:
    assert_whole_responses_repeat("engine_greedy_n4", staged.url)


def test_requests_are_answered_as_by_one_stage(stages: httpx.Client, http: httpx.Client) -> None:
    bodies = requests()
    for body, ours, theirs in zip(
        bodies, answers(stages, bodies), answers(http, bodies), strict=True
    ):
        assert ours == theirs, body


def test_what_was_thought_is_counted(stages: httpx.Client) -> None:
    names = ("thought_tokens_total", "thoughts_total", "mixing_weight_count", "passes_total")
    before = {name: metric(stages, f"quietstar:{name}") for name in names}
    body = {**LONG, "max_tokens": 20, "thought_budget": 8}
    spent = stages.post("/v1/completions", json=body).raise_for_status().json()
    rose = {name: metric(stages, f"quietstar:{name}") - before[name] for name in names}
    assert rose == {
        "thought_tokens_total": spent["usage"]["thought_tokens"],
        "thoughts_total": 20,
        "mixing_weight_count": 20,
        "passes_total": spent["quiet_star"]["passes"],
    }


def test_a_grammar_holds(stages: httpx.Client, http: httpx.Client) -> None:
    body = {
        **LONG,
        "ignore_eos": False,
        "max_tokens": 8,
        "seed": 3,
        "structured_outputs": {"regex": "(t1[0-9] ){3}"},
    }
    texts = [
        client.post("/v1/completions", json=body).raise_for_status().json()["choices"][0]["text"]
        for client in (stages, http)
    ]
    assert texts[0] == texts[1]


def test_a_client_that_leaves_frees_all_stages(stages: httpx.Client) -> None:
    with under_way(stages, LONG, n=6, return_thoughts=True):
        pass
    eventually(lambda: is_idle(stages))
    eventually(lambda: metric(stages, "quietstar:recorded_thought_tokens") == 0)
    assert metric(stages, "quietstar:thoughts_in_progress") == 0


def test_a_stage_that_is_killed_ends_the_server(staged: RunningServer) -> None:
    """Last of this server."""
    (first, _) = [
        child
        for child in psutil.Process(staged.process.pid).children(recursive=True)
        if "Worker_PP" in child.cmdline()[0]
    ]
    with httpx.Client(base_url=staged.url, timeout=60) as client, ThreadPoolExecutor() as pool:
        asked = [pool.submit(client.post, "/v1/completions", json=LONG) for _ in range(2)]
        eventually(lambda: metric(client, "vllm:num_requests_running{") == 2)
        first.send_signal(signal.SIGKILL)
        assert 503 in health_until_gone(staged)
        for future in asked:
            error_of(future.result(), 500)
    assert staged.process.wait(60) == ExitStatus.ENGINE_FAILED
    assert "python -m server: the engine died" in staged.log.splitlines()
