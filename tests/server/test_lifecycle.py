"""A server's life: what it prints, how it ends, and that nothing of it is left."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI

from server.cli import DEFAULT_SHUTDOWN_SECONDS, parse_arguments
from server.engine.engine import _SECONDS_TO_STOP
from server.errors import ExitStatus
from server.lifecycle import _SECONDS_TO_ANSWER, _bound_socket, _uvicorn_config
from tests.support.load import (
    LASTING,
    LONG,
    ask,
    engine_of,
    error_of,
    eventually,
    health_until_gone,
    served,
    under_way,
)
from tests.support.servers import DEMO, ROOT, RunningServer, running_server

pytestmark = pytest.mark.slow

PROMPT = "The dog"
ENGINE_SECONDS = 2


@pytest.fixture(scope="module")
def demo() -> Iterator[RunningServer]:
    """The demonstration model, with little patience for its engine."""
    with running_server(DEMO, *LASTING, "--engine-timeout", str(ENGINE_SECONDS)) as server:
        yield server


def test_connections_are_without_nagles_algorithm() -> None:
    """Seen on the socket of a connection: in a stream it would only show in the times."""
    with _bound_socket(Namespace(host="127.0.0.1", port=0)) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_ready_server_prints_one_line_to_paste(demo: RunningServer) -> None:
    (command,) = [line for line in demo.log.splitlines() if line.startswith("for budget in")]
    assert demo.log.count("─" * 20) > 2
    pasted = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    plain, thinking = (json.loads(line) for line in pasted.stdout.splitlines())
    assert plain["choices"][0]["text"]
    assert plain["quiet_star"]["thought_budget"] == 0
    assert thinking["choices"][0]["text"]
    assert thinking["quiet_star"]["thought_budget"] > 0


def test_a_start_prints_little(demo: RunningServer) -> None:
    assert len(demo.log.splitlines()) < 15, demo.log
    assert "Traceback" not in demo.log
    assert "WARNING" not in demo.log


def test_an_engine_that_hangs_is_unhealthy_until_it_goes_on(demo: RunningServer) -> None:
    engine = engine_of(demo)
    engine.suspend()
    try:
        eventually(lambda: httpx.get(f"{demo.url}/health").status_code == 503)
        answer = httpx.get(f"{demo.url}/ping")
        error = error_of(answer, 503)
        assert error["type"] == "ServiceUnavailableError"
        assert error["message"].startswith("the engine has not replied for ")
    finally:
        engine.resume()
    eventually(lambda: httpx.get(f"{demo.url}/health").status_code == 200)
    # An idle engine is asked again and replies, each time.
    for _ in range(3):
        assert httpx.get(f"{demo.url}/health").status_code == 200


def test_supervisors_wait_for_as_long_as_a_stop_can_take() -> None:
    """Running requests finish, the others are answered, the engine stops."""
    most = DEFAULT_SHUTDOWN_SECONDS + _SECONDS_TO_ANSWER + _SECONDS_TO_STOP
    documents = [ROOT / "docs" / "operations.md", ROOT / "monitoring" / "compose.yaml"]
    manifest = ROOT / "monitoring" / "kubernetes" / "deployment.yaml"
    pattern = (
        r"(?:--stop-timeout |terminationGracePeriodSeconds: |TimeoutStopSec=|stop_grace_period: )"
        r"(\d+)"
    )
    found = [int(number) for it in documents for number in re.findall(pattern, it.read_text())]
    assert len(found) >= 3
    assert len(set(found)) == 1
    assert found[0] > most
    # There the time begins before the signal.
    (with_hook,) = map(int, re.findall(pattern, manifest.read_text()))
    assert with_hook > found[0]


def test_idle_connections_stay_open_for_longer_than_proxies_keep_theirs() -> None:
    args = parse_arguments([str(DEMO)])
    config = _uvicorn_config(FastAPI(), args)
    # nginx and AWS: 60 s; Go's standard client: 90 s.
    assert config.timeout_keep_alive == args.keep_alive_timeout > 90
    args.keep_alive_timeout = 0
    assert _uvicorn_config(FastAPI(), args).timeout_keep_alive > 10**6


def test_on_ctrl_c_the_server_finishes_running_requests_and_ends(demo: RunningServer) -> None:
    """Last of this server. Ctrl-C goes to every process of the terminal's group."""
    body = {"prompt": PROMPT, "max_tokens": 100, "ignore_eos": True, "stream": True}
    url = f"{demo.url}/v1/completions"
    with httpx.stream("POST", url, json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        os.killpg(demo.process.pid, signal.SIGINT)
        *chunks, done = [line for line in lines if line]
    assert done == "data: [DONE]"
    assert json.loads(chunks[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert demo.process.wait(60) == 0
    assert "Traceback" not in demo.log
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{demo.url}/health")


def test_a_second_signal_ends_the_server_at_once() -> None:
    with (
        running_server(DEMO, *LASTING) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        processes = psutil.Process(server.process.pid).children(recursive=True)
        with under_way(client) as connection:
            server.process.terminate()
            eventually(lambda: "Stopping:" in server.log)
            server.process.terminate()
            assert server.process.wait(20) == -signal.SIGTERM
            assert connection.recv(100) == b""
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive


def test_a_dead_engine_ends_the_server() -> None:
    with (
        running_server(DEMO, *LASTING) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        engine = engine_of(server)
        with ThreadPoolExecutor() as pool:
            whole = pool.submit(ask, client, **LONG)
            stream = pool.submit(ask, client, **LONG, stream=True)
            eventually(lambda: served(client) == 2)
            engine.kill()
            assert 503 in health_until_gone(server)
        error_of(whole.result(), 500)
        *_, error, done = [line for line in stream.result().text.splitlines() if line]
        assert "error" in json.loads(error.removeprefix("data: "))
        assert done == "data: [DONE]"
        assert server.process.wait(60) == ExitStatus.ENGINE_FAILED
        assert "python -m server: the engine died" in server.log.splitlines()


def test_a_killed_server_leaves_no_process_behind() -> None:
    with running_server(DEMO, *LASTING) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) >= 2
        server.process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive


def test_a_server_can_be_stopped_while_it_starts() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "server", str(DEMO), "--port", "0"], cwd=ROOT
    ) as starting:
        process = psutil.Process(starting.pid)
        # The process that checks grammars, the resource tracker and the engine, which may not have
        # got to asking to be ended with its server.
        eventually(lambda: len(process.children(recursive=True)) >= 3, seconds=120)
        children = process.children(recursive=True)
        starting.send_signal(signal.SIGINT)
        assert starting.wait(10) == -signal.SIGINT
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
