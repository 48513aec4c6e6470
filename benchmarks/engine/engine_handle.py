"""Starts and controls processes with an engine; each is halted while another one is measured.

Idle engines are not quiet: vLLM's workers poll for work at full speed for a second after the last
step, and on a small machine they would do so on a core that another engine is measured on.
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

SERVED_ENGINE = "benchmarks.engine.served_engine"
"""The module of a process with an engine as the server runs it."""
_REASON = re.compile(r"\b\w*(?:Error|Exception): .*")
# After that an engine that does not end is killed.
_SHUTDOWN_SECONDS = 30


class EngineEndedError(Exception):
    """An engine's process ended by itself; the message says why and names its log."""


class EngineHandle:
    """One engine in its own group of processes, halted (SIGSTOP) unless it is being measured."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection, log: Path) -> None:
        self._process = process
        self._pipe = pipe
        self._log = log

    def wait_until_ready(self) -> None:
        """Wait until the engine has started, and halt it."""
        self.receive()
        self._signal(signal.SIGSTOP)

    def run(self, load: Load) -> list[Times]:
        """Wake the engine, have it run a load, and halt it again."""
        times: list[Times] = self.call(load)
        return times

    def call(self, message: Any) -> Any:
        """Wake the process, send it a message, wait for its answer and halt it again."""
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

    def begin_to_end(self) -> None:
        """Wake the engine and let it shut down; `close` waits for that."""
        self._signal(signal.SIGCONT)
        self._pipe.close()

    def close(self) -> None:
        """End the engine and all its processes."""
        self.begin_to_end()
        try:
            self._process.wait(_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _ended(self) -> EngineEndedError:
        # The first error in the log is the cause of the later ones.
        found = _REASON.search(self._log.read_text(errors="replace"))
        reason = found.group() if found else "it did not say why"
        return EngineEndedError(f"an engine ended by itself: {reason} (its log: {self._log})")


@contextmanager
def launched_engine(spec: EngineSpec, module: str = SERVED_ENGINE) -> Iterator[EngineHandle]:
    """Launch a process with an engine; `EngineHandle.wait_until_ready` waits for the engine.

    The process ends with the `with` block.
    """
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
