"""A server's life: what it prints, how it ends, what it holds on to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from server.lifecycle import _bound_socket
from tests.support.servers import DEMO, ROOT, RunningServer, running_server

# Two thoughts of 3 tokens fit, a third does not.
ROOM = 8
PROMPT = "The dog"


@pytest.fixture(scope="module")
def demo() -> Iterator[RunningServer]:
    """The demonstration model, with little room for thoughts that are asked for."""
    options = ("--allow-return-thoughts", "--max-recorded-thought-tokens", str(ROOM))
    with running_server(DEMO, *options) as server:
        yield server


def test_connections_do_not_hold_tokens_back() -> None:
    """What a socket's connections inherit is seen on one of them; in a stream, only its times would
    show it.
    """
    with _bound_socket(Namespace(host="127.0.0.1", port=0)) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def complete(server: RunningServer, **body: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True} | body
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    content: dict[str, Any] = answer.raise_for_status().json()
    return content


def with_thoughts(server: RunningServer, max_tokens: int) -> dict[str, Any]:
    choice: dict[str, Any] = complete(
        server, max_tokens=max_tokens, thought_budget=3, return_thoughts=True
    )["choices"][0]
    return choice


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_ready_server_prints_one_line_to_paste(demo: RunningServer) -> None:
    (command,) = [line for line in demo.log.splitlines() if line.startswith("for budget in")]
    assert demo.log.count("─" * 20) > 2
    pasted = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    plain, thinking = (json.loads(line) for line in pasted.stdout.splitlines())
    assert plain["choices"][0]["text"]
    assert plain["quiet_star"]["thought_budget"] == 0
    assert thinking["choices"][0]["text"]
    assert thinking["quiet_star"]["thought_budget"] > 0


def test_a_quiet_start(demo: RunningServer) -> None:
    assert len(demo.log.splitlines()) < 15, demo.log
    assert "Traceback" not in demo.log
    assert "WARNING" not in demo.log


def test_thoughts_without_room_are_missing_and_it_says_so(demo: RunningServer) -> None:
    choice = with_thoughts(demo, max_tokens=5)
    first, second, *lost = choice["thoughts"]
    assert len(first["token_ids"]) == len(second["token_ids"]) == 3
    assert lost == [None] * 3
    assert choice["thoughts_truncated"]


def test_answered_thoughts_make_room(demo: RunningServer) -> None:
    for _ in range(3):
        assert None not in with_thoughts(demo, max_tokens=2)["thoughts"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_is_forgotten(demo: RunningServer, stream: bool) -> None:
    body = {
        "prompt": PROMPT,
        "max_tokens": 800,
        "thought_budget": 3,
        "ignore_eos": True,
        "return_thoughts": True,
        "stream": stream,
    }
    if stream:
        with httpx.stream("POST", f"{demo.url}/v1/completions", json=body, timeout=60) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{demo.url}/v1/completions", json=body, timeout=1)

    def nothing_runs() -> bool:
        return running_requests(demo) == 0

    eventually(nothing_runs)
    eventually(lambda: None not in with_thoughts(demo, max_tokens=2)["thoughts"])


def running_requests(server: RunningServer) -> float:
    metrics = httpx.get(f"{server.url}/metrics").text
    (line,) = [
        line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running")
    ]
    return float(line.split()[-1])


def test_on_ctrl_c_the_server_answers_what_is_running_and_ends(demo: RunningServer) -> None:
    """Last: it ends the server. Ctrl-C goes to every process of the terminal's group."""
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


def test_a_killed_server_leaves_no_process_behind() -> None:
    with running_server(DEMO) as server:
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
        # The resource tracker, the engine and its worker.
        eventually(lambda: len(process.children(recursive=True)) >= 3, seconds=120)
        children = process.children(recursive=True)
        starting.send_signal(signal.SIGINT)
        assert starting.wait(10) == -signal.SIGINT
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
