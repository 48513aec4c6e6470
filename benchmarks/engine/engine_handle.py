"""The other end of a process with an engine; every process stands still while another is measured.

Idle engines are not quiet: vLLM's workers look for work, at full speed, for a second after the last
one, and on a small machine they would do so on a core that another engine is measured on.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.engine.load import Load, Times
from benchmarks.engine.spec import EngineSpec

ENGINE = "benchmarks.engine.served_engine"
REASON = re.compile(r"\b\w*(?:Error|Exception): .*")
# For an engine that waits for something else than work.
SHUTDOWN_SECONDS = 30


class EngineEndedError(Exception):
    """An engine's process ended by itself; the message says why and names its log."""


class EngineHandle:
    """One engine in its own group of processes."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection, log: Path) -> None:
        self._process = process
        self._pipe = pipe
        self._log = log

    def start(self) -> None:
        """Wait until the engine runs, and halt it."""
        self.receive()
        self._signal(signal.SIGSTOP)

    def run(self, load: Load) -> list[Times]:
        """Wake the engine, have it run a load, and halt it again."""
        times: list[Times] = self.ask(load)
        return times

    def ask(self, message: Any) -> Any:
        """Send a message to the awakened process and wait for its answer."""
        self._signal(signal.SIGCONT)
        self.send(message)
        answer = self.receive()
        self._signal(signal.SIGSTOP)
        return answer

    def send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._ended() from None

    def receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None

    def close(self) -> None:
        """End the engine and all its processes."""
        self._signal(signal.SIGCONT)
        self._pipe.close()
        try:
            self._process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _ended(self) -> EngineEndedError:
        # What comes first is the cause of what comes after it.
        said = REASON.search(self._log.read_text(errors="replace"))
        reason = said.group() if said else "it did not say why"
        return EngineEndedError(f"an engine ended by itself: {reason} (its log: {self._log})")


@contextmanager
def side(spec: EngineSpec, module: str = ENGINE) -> Iterator[EngineHandle]:
    """A process with an engine that is starting; `EngineHandle.start` waits for it."""
    ours, theirs = Pipe()
    file, name = tempfile.mkstemp(prefix="quietstar-engine-", suffix=".log")
    with open(file, "wb") as log, ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno())],
            env=os.environ | spec.variables,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        theirs.close()
        started = EngineHandle(process, ours, Path(name))
        try:
            started.send(spec)
            yield started
        finally:
            started.close()
    Path(name).unlink()
