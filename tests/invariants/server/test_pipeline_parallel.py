"""Two stages of one model (pipeline parallelism), each on a node of its own: requests are answered
as by one, and what they thought and counted comes from the last.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from server.errors import ExitStatus
from tests.invariants.server.test_data_parallel import answers, requests
from tests.invariants.server.test_golden_over_http import assert_whole_responses_repeat
from tests.support.load import error_of, eventually, health_until_gone, is_idle, metric, under_way
from tests.support.servers import (
    GOLDEN,
    RunningServer,
    free_port,
    running_node,
    running_server,
)

pytestmark = pytest.mark.slow

LONG = {"prompt": "t5 t9", "max_tokens": 400, "thought_budget": 16, "ignore_eos": True}


class Stages(NamedTuple):
    server: RunningServer
    node: RunningServer


@pytest.fixture(scope="module")
def staged() -> Iterator[Stages]:
    """The model of `server`, of whose two layers a node has one."""
    model = GOLDEN / "engine_greedy_n4" / "checkpoint"
    options = (
        *("--pipeline-parallel-size", "2", "--nnodes", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
    )
    with (
        running_node(model, *options, "--node-rank", "1") as node,
        running_server(model, *options, "--allow-return-thoughts") as server,
    ):
        yield Stages(server, node)


@pytest.fixture
def stages(staged: Stages) -> Iterator[httpx.Client]:
    """A client of that server, which is idle."""
    with httpx.Client(base_url=staged.server.url, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def test_the_recordings_are_repeated(staged: Stages) -> None:
    assert_whole_responses_repeat("engine_greedy_n4", staged.server.url)


def test_requests_are_answered_as_by_one_stage(stages: httpx.Client, http: httpx.Client) -> None:
    bodies = requests()
    for body, ours, theirs in zip(
        bodies, answers(stages, bodies), answers(http, bodies), strict=True
    ):
        assert ours == theirs, body


def test_what_was_thought_is_counted(stages: httpx.Client) -> None:
    names = {
        "tokens": "quietstar:thought_tokens_total{",
        "thoughts": "quietstar:thoughts_finished_total{",
        "weights": 'quietstar:mixing_weight_bucket{le="+Inf"',
        "rows": "quietstar:engine_rows_total{",
    }
    before = {name: metric(stages, full_name) for name, full_name in names.items()}
    body = {**LONG, "max_tokens": 20, "thought_budget": 8}
    stages.post("/v1/completions", json=body).raise_for_status()
    rose = {name: metric(stages, full_name) - before[name] for name, full_name in names.items()}
    assert rose == {"tokens": 20 * 8, "thoughts": 20, "weights": 20, "rows": 20 * 9}


def test_a_client_that_leaves_frees_all_stages(stages: httpx.Client) -> None:
    with under_way(stages, LONG, n=6, return_thoughts=True):
        pass
    eventually(lambda: is_idle(stages))
    eventually(lambda: metric(stages, "quietstar:recorded_thought_tokens") == 0)
    assert metric(stages, "quietstar:thoughts_in_progress") == 0


def test_both_end_when_the_stage_of_a_node_is_killed(staged: Stages) -> None:
    """Last of these."""
    server, node = staged
    (worker,) = [
        child
        for child in psutil.Process(node.process.pid).children()
        if "Worker_PP1" in child.cmdline()[0]
    ]
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor() as pool:
        asked = [pool.submit(client.post, "/v1/completions", json=LONG) for _ in range(2)]
        eventually(lambda: metric(client, "vllm:num_requests_running{") == 2)
        worker.send_signal(signal.SIGKILL)
        assert 503 in health_until_gone(server)
        for future in asked:
            error_of(future.result(), 500)
    assert server.process.wait(60) == ExitStatus.ENGINE_FAILED
    assert server.log.splitlines()[-1] == "python -m server: the engine died"
    assert node.process.wait(60) == ExitStatus.ENGINE_FAILED
    assert "a part of the model on this node has ended" in node.log.splitlines()[-1]
