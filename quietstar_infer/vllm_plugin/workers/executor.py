"""The executor of one CPU worker, whose multi-step it interrupts when a request waits.

While a worker runs a multi-step, the engine waits for it and schedules nothing. So every message
that is put into the engine's input queue (a new request, an aborted one, a call) is announced to
the worker by a signal, on which it ends the multi-step after the pass it is in. Not where there are
several workers: the signal would not reach all of them between the same two passes.
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
    """vLLM's executor with one worker process, whose multi-steps it interrupts."""

    def register_failure_callback(self, callback: Callable[[], None]) -> None:
        """vLLM's own; gives the engine, which has just got its workers, another input queue.

        There is no other way to the queue: vLLM 0.32 names the class of its engine process in the
        code that starts it, that class makes the queue in its constructor, and all that the
        executor gets of it is this callback, whose closure holds the engine. Can go when an
        executor is told of requests that arrive while it runs a step.
        """
        super().register_failure_callback(callback)
        engine = getclosurevars(callback).nonlocals["self"]
        assert engine.input_queue.empty(), "nothing is connected to the engine yet"
        engine.input_queue = AnnouncingQueue(self._interrupt)

    def _interrupt(self) -> None:
        with suppress(ProcessLookupError):  # it has died, which the engine is told otherwise
            os.kill(self.workers[0].proc.pid, INTERRUPT)
