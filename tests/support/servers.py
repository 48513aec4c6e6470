"""Real servers in processes of their own."""

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

import httpx

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DEMO = ROOT / "models" / "demo"
# Exact arithmetic, a quick start, and room for several servers on a small machine.
TEST_OPTIONS = (
    *("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"),
    *("--kv-cache-memory-bytes", str(256 << 20)),
)
# Limits of the server that most tests share: small enough to be met, large enough for a machine
# that is busy.
MAX_BODY_BYTES = 1 << 20
RECEIVE_SECONDS = 5
# An engine starts in 20 to 60 seconds; the machine may be busy with other tests.
START_SECONDS = 300.0
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class RunningServer:
    """A server that answers at `url`, its process and the file with all that it has printed."""

    url: str
    process: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@contextmanager
def running_server(model: Path | str, *options: str) -> Iterator[RunningServer]:
    """A ready server for the length of a `with` block, on a free port.

    Fails, showing the end of its log, where the process ends before it is ready.
    """
    with _running(["server", str(model), *TEST_OPTIONS, *options], os.environ) as server:
        yield server


@contextmanager
def running_stock_server(model: Path, *options: str) -> Iterator[RunningServer]:
    """vLLM's own server, none of ours in it."""
    module = ["vllm.entrypoints.openai.api_server", "--model", str(model)]
    with _running([*module, *TEST_OPTIONS, *options], os.environ | {"VLLM_PLUGINS": ""}) as server:
        yield server


@contextmanager
def _running(module: list[str], environment: Mapping[str, str]) -> Iterator[RunningServer]:
    """A module with its arguments; the port is added to them."""
    port = free_port()
    with TemporaryDirectory() as folder:
        log_file = Path(folder) / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module, "--port", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: signals to the tests are none of the server's business.
                start_new_session=True,
            )
        server = RunningServer(f"http://127.0.0.1:{port}", process, log_file)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            _stop(process)


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


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
