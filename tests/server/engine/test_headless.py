"""Replicas on a node without an HTTP server, or a part of a model: they take part, and each side
ends with the other, with one sentence.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from safetensors.torch import load_file, save_file

from server.engine.headless import check_node_options
from server.errors import ExitStatus, StartError
from server.vllm_api import AsyncEngineArgs
from tests.invariants.server.test_golden_over_http import assert_whole_responses_repeat
from tests.support.load import LASTING, error_of, eventually, health_until_gone, metric
from tests.support.servers import (
    GOLDEN,
    ROOT,
    START_SECONDS,
    TEST_OPTIONS,
    RunningServer,
    free_port,
    running_node,
    running_server,
)

pytestmark = pytest.mark.slow

MODEL = GOLDEN / "engine_greedy_n4" / "checkpoint"
LONG = {"prompt": "t5 t9", "max_tokens": 900, "thought_budget": 16, "ignore_eos": True}


def replica_options(port: int) -> list[str]:
    """Of both sides: two replicas, one on each."""
    return [
        *("--data-parallel-size", "2", "--data-parallel-size-local", "1"),
        *("--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(port)),
    ]


def part_options(port: int) -> list[str]:
    """Of both sides: one model, a half on each."""
    return [
        *("--pipeline-parallel-size", "2", "--nnodes", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
    ]


class Cluster(NamedTuple):
    server: RunningServer
    node: RunningServer


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server with a replica, and a node with another."""
    options = replica_options(free_port())
    with (
        running_node(MODEL, *LASTING, *options, "--data-parallel-start-rank", "1") as node,
        running_server(MODEL, *LASTING, *options, "--allow-return-thoughts") as server,
    ):
        yield Cluster(server, node)


def other_checkpoint(folder: Path) -> Path:
    """Of the same shapes."""
    other = folder / "other"
    shutil.copytree(MODEL, other, copy_function=shutil.copyfile)
    (file,) = [file for file in other.glob("*.safetensors") if "lm_head.weight" in load_file(file)]
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"] * 2}, file)
    return other


def last_line(process: RunningServer) -> str:
    return process.log.splitlines()[-1]


def failed_start(status: ExitStatus, *options: str, seconds: int = 600) -> str:
    """The last line of a start that fails with this status."""
    done = subprocess.run(
        [sys.executable, "-m", "server", str(MODEL), "--port", "0", *TEST_OPTIONS, *options],
        cwd=ROOT,
        env={**os.environ, "VLLM_ENGINE_READY_TIMEOUT_S": str(seconds)},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


def test_the_replica_of_a_node_repeats_the_recordings(cluster: Cluster) -> None:
    for rank in ("0", "1"):
        headers = {"X-data-parallel-rank": rank}
        assert_whole_responses_repeat("engine_greedy_n4", cluster.server.url, headers)


def test_both_end_when_the_replica_of_a_node_is_killed(cluster: Cluster) -> None:
    """Last of this cluster."""
    (engine,) = [
        child
        for child in psutil.Process(cluster.node.process.pid).children()
        if "EngineCore" in child.cmdline()[0]
    ]
    server = cluster.server
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor() as pool:
        asked = [pool.submit(client.post, "/v1/completions", json=LONG) for _ in range(2)]
        eventually(lambda: metric(client, "vllm:num_requests_running{") == 2)
        engine.send_signal(signal.SIGKILL)
        assert 503 in health_until_gone(server)
        for future in asked:
            error_of(future.result(), 500)
    assert server.process.wait(60) == ExitStatus.ENGINE_FAILED
    assert last_line(server) == "python -m server: the engine died"
    assert cluster.node.process.wait(60) == ExitStatus.ENGINE_FAILED
    assert last_line(cluster.node) == "python -m server: a replica has ended"


def test_a_node_with_another_checkpoint_is_refused(tmp_path: Path) -> None:
    """And ends, because its server has."""
    options = replica_options(free_port())
    with running_node(
        other_checkpoint(tmp_path), *options, "--data-parallel-start-rank", "1"
    ) as node:
        line = failed_start(ExitStatus.BAD_OPTION, *options)
        assert "replica 1 has another checkpoint than replica 0: start all nodes" in line
        assert node.process.wait(60) == ExitStatus.ENGINE_FAILED
        assert "the server at 127.0.0.1 has ended, or has refused this node" in last_line(node)


def test_another_checkpoint_is_refused_on_a_node_with_a_part_of_the_model(
    tmp_path: Path,
) -> None:
    options = part_options(free_port())
    with running_node(other_checkpoint(tmp_path), *options, "--node-rank", "1") as node:
        line = failed_start(ExitStatus.BAD_OPTION, *options)
        assert "rank 1 has another checkpoint than rank 0: start all nodes" in line
        assert node.process.wait(60) == ExitStatus.ENGINE_FAILED
        assert "has ended" in last_line(node)


def test_a_server_does_not_wait_forever_for_a_replica() -> None:
    port = free_port()
    line = failed_start(ExitStatus.ENGINE_FAILED, *replica_options(port), seconds=5)
    assert "replicas on other machines (1) have not all come up within 5 s" in line
    assert f"--data-parallel-rpc-port {port}" in line


def test_a_node_does_not_wait_forever_for_a_server() -> None:
    port = free_port()
    options = ("--headless", *replica_options(port), "--data-parallel-start-rank", "1")
    line = failed_start(ExitStatus.ENGINE_FAILED, *options, seconds=5)
    assert f"no server waits for replicas on 127.0.0.1 port {port}" in line


def test_a_server_does_not_wait_forever_for_a_node() -> None:
    port = free_port()
    line = failed_start(ExitStatus.ENGINE_FAILED, *part_options(port), seconds=5)
    assert "the other nodes (1) have not all come up within 5 s" in line
    assert f"--node-rank, --master-addr 127.0.0.1 and --master-port {port}" in line


def test_a_node_does_not_wait_forever_for_the_first() -> None:
    port = free_port()
    options = ("--headless", *part_options(port), "--node-rank", "1")
    line = failed_start(ExitStatus.ENGINE_FAILED, *options, seconds=5)
    assert f"no server waits for this node on 127.0.0.1 port {port}" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (replica_options, "cannot wait for replicas on 127.0.0.1 port {port}"),
        (part_options, "the port at which the nodes meet is taken"),
    ],
)
def test_a_port_that_is_taken_is_named(options: Callable[[int], list[str]], words: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = failed_start(ExitStatus.ADDRESS_TAKEN, *options(port))
    assert words.format(port=port) in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--data-parallel-size-local, the number of this node's replicas"),
        ({"data_parallel_size_local": 2, "data_parallel_start_rank": 0}, "must be larger"),
        ({"data_parallel_size_local": 0, "data_parallel_start_rank": 0}, "must be larger"),
        ({"data_parallel_size_local": 1}, "--data-parallel-start-rank"),
        ({"data_parallel_size_local": 1, "data_parallel_start_rank": 2}, "from 0 to 1"),
        ({"data_parallel_size_local": 1, "data_parallel_start_rank": -1}, "from 0 to 1"),
    ],
)
def test_a_node_must_know_its_replicas(options: dict[str, int], words: str) -> None:
    engine_args = AsyncEngineArgs(model=str(MODEL), data_parallel_size=2, **options)  # type: ignore[arg-type]
    with pytest.raises(StartError, match=words):
        check_node_options(engine_args)


def test_the_first_node_of_a_model_has_the_server() -> None:
    engine_args = AsyncEngineArgs(model=str(MODEL), pipeline_parallel_size=2, nnodes=2)
    with pytest.raises(StartError, match="--node-rank, from 1 to 1: node 0 has the HTTP server"):
        check_node_options(engine_args)


def test_the_other_nodes_have_none() -> None:
    line = failed_start(ExitStatus.BAD_OPTION, *part_options(free_port()), "--node-rank", "1")
    assert "--node-rank 1 is a node without an HTTP server: add --headless" in line
