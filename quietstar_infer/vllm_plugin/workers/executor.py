"""The executor of one CPU worker, which tells it when somebody waits for the engine.

A worker in a burst is deaf: the engine waits for it, and hands out the next step when it is done.
So whatever is put into the engine's input queue (a new request, an aborted one, a question) is
announced by a signal, on which the worker ends its burst after the pass it is in. Not where there
are several workers: they would not get it between the same two passes.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from inspect import getclosurevars
from queue import Queue
from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor

INTERRUPT = signal.SIGUSR1


class AnnouncingQueue(Queue[Any]):
    """A queue that calls a function after every item."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As in `queue.Queue`."""
        super().put(item, block, timeout)
        self._announce()


class InterruptingExecutor(MultiprocExecutor):
    """vLLM's executor with one worker process, whose bursts it ends when somebody waits."""

    def register_failure_callback(self, callback: Callable[[], None]) -> None:
        """vLLM's own; gives the engine, which has just got its worker, another input queue."""
        super().register_failure_callback(callback)
        # The callback puts a message into the engine's queue; the queue itself is handed to nobody.
        engine = getclosurevars(callback).nonlocals["self"]
        assert engine.input_queue.empty(), "nobody is connected yet"
        engine.input_queue = AnnouncingQueue(self._interrupt)

    def _interrupt(self) -> None:
        with suppress(ProcessLookupError):  # it has died, and the engine will hear of it
            os.kill(self.workers[0].proc.pid, INTERRUPT)
