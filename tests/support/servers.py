"""Real servers in processes of their own, and the fixtures of those that many tests share.

A server takes half a minute to start, so that each of the fixtures starts one per session.
`tests/conftest.py` makes them known to all tests.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from openai import OpenAI

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DEMO = ROOT / "models" / "demo"
# Exact arithmetic, a quick start, and memory for several servers on a small machine.
TEST_OPTIONS = (
    *("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"),
    *("--kv-cache-memory-bytes", str(256 << 20)),
)
# Limits of the server that most tests share: small enough to be reached, large enough for a machine
# that is busy.
MAX_BODY_BYTES = 1 << 20
RECEIVE_SECONDS = 5
# An engine starts in 20 to 60 seconds; the machine may be busy with other tests.
START_SECONDS = 300.0
STOP_SECONDS = 60.0
# In the words of the small models. The role determines which word begins a message.
CHAT_TEMPLATE = (
    "<s>{% set words = roles or {'system': 't10', 'user': 't11', 'assistant': 't12'} %}"
    "{% for message in messages %} {{ words[message.role] }} {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %} t12{% endif %}"
)


@dataclass(frozen=True)
class RunningServer:
    """A server that answers at `url`, its process, and the file with its output."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@contextmanager
def running_server(
    model: Path | str, *options: str, environment: Mapping[str, str] = {}
) -> Iterator[RunningServer]:
    """A ready server for the length of a `with` block, on a free port, with these environment
    variables beside this process's.

    Fails with the end of its log if the process ends before it is ready.
    """
    module = ["server", str(model), *TEST_OPTIONS, *options]
    with _running(module, {**os.environ, **environment}) as server:
        try:
            yield server
        finally:
            # Its engine ends with it, and at once: `tests/server/test_lifecycle.py`.
            server.process.kill()


@contextmanager
def running_stock_server(model: Path, *options: str) -> Iterator[RunningServer]:
    """vLLM's own server, without our plugin."""
    module = ["vllm.entrypoints.openai.api_server", "--model", str(model)]
    with _running([*module, *TEST_OPTIONS, *options], os.environ | {"VLLM_PLUGINS": ""}) as server:
        yield server


@contextmanager
def running_node(model: Path | str, *options: str) -> Iterator[RunningServer]:
    """A node without an HTTP server (`--headless`), which may still be starting."""
    module = ["server", str(model), *TEST_OPTIONS, "--headless", *options]
    with _started(module, os.environ, "") as node:
        try:
            yield node
        finally:
            node.process.kill()
            node.process.wait(STOP_SECONDS)


@contextmanager
def _running(module: list[str], environment: Mapping[str, str]) -> Iterator[RunningServer]:
    """A module with its arguments, to which the port is added."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _started([*module, "--port", str(port)], environment, url) as server:
        try:
            _wait_until_ready(server)
            yield server
        finally:
            _stop(server.process)


@contextmanager
def _started(
    module: list[str], environment: Mapping[str, str], url: str
) -> Iterator[RunningServer]:
    """The process of a module with its arguments."""
    with TemporaryDirectory() as folder:
        log_file = Path(folder) / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                # vLLM leaves its sockets behind.
                env={**environment, "VLLM_RPC_BASE_PATH": folder},
                stdout=log,
                stderr=subprocess.STDOUT,
                # A process group of its own: signals to the tests must not reach the server.
                start_new_session=True,
            )
        yield RunningServer(url, process, log_file)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(server: RunningServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = server.process.poll()
        assert status is None, f"the server ended with status {status}:\n{server.log[-4000:]}"
        try:
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"no server after {START_SECONDS} s:\n{server.log[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A server that shows thoughts, of a small random model with words t0 … t63."""
    model = GOLDEN / "engine_greedy_n4" / "checkpoint"
    options = [
        *("--served-model-name", "golden", "--allow-return-thoughts"),
        *("--alias", "golden:think-8=budget:8", "golden/careful=budget:4,threshold:0.5"),
        *("--chat-template", CHAT_TEMPLATE),
        *("--receive-timeout", str(RECEIVE_SECONDS)),
        *("--max-body-mib", str(MAX_BODY_BYTES >> 20)),
    ]
    with running_server(model, *options) as running:
        yield running


@pytest.fixture(scope="session")
def n8_server() -> Iterator[RunningServer]:
    """A server of the model whose recordings have longer thoughts. It counts thought tokens as
    OpenAI counts reasoning."""
    model = GOLDEN / "engine_greedy_n8" / "checkpoint"
    chats = ("--chat-template", CHAT_TEMPLATE)
    with running_server(model, "--allow-return-thoughts", "--usage", "openai", *chats) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def openai(server: RunningServer) -> Iterator[OpenAI]:
    """The official client of `server`."""
    from openai import OpenAI

    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def demo_server() -> Iterator[RunningServer]:
    """The demonstration model, which shows its thoughts."""
    with running_server(DEMO, "--served-model-name", "demo", "--allow-return-thoughts") as running:
        yield running


@pytest.fixture(scope="session")
def quick_server() -> Iterator[RunningServer]:
    """A server that neither thinks nor shows thoughts."""
    options = ("--max-thought-budget", "0", "--served-model-name", "quick", "quicker")
    with running_server(DEMO, *options) as running:
        yield running


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with little memory: a ninth request waits, and a few long ones preempt each other.

    Its environment asks for prometheus_client's mode for many processes, which must have no effect.
    """
    from tests.support.checkpoints import write_random_checkpoint

    model = write_random_checkpoint(tmp_path_factory.mktemp("small"), "llama")
    # 12 blocks of 32 tokens: 2 layers, K and V, 1 head of 32, 4 bytes.
    kv_cache_bytes = 12 * 32 * 2 * 2 * 32 * 4
    with running_server(
        model,
        *("--served-model-name", "small", "--allow-return-thoughts"),
        *("--max-num-seqs", "8", "--max-model-len", "256"),
        *("--block-size", "32", "--kv-cache-memory-bytes", str(kv_cache_bytes)),
        environment={"PROMETHEUS_MULTIPROC_DIR": "/nowhere"},
    ) as running:
        yield running
