"""The executor of one CPU worker, in the engine's own process.

vLLM gives a worker a process of its own, also where there is one only, because OpenMP reads its
environment when a process starts: each engine step then waits twice for a message to pass, another
process imports everything at start, and keeps it. Here the engine's process is started in that
environment instead (`openmp_environment`).

While the worker runs a multi-step the engine schedules nothing. So every message that is put into
the engine's input queue (a new request, an aborted one, a call), which a thread of its own does,
ends the multi-step after the pass it is in. Not where there are several workers: they would not all
end it between the same two passes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getclosurevars
from queue import Queue
from typing import Any

from vllm.config import VllmConfig
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from quietstar_infer.vllm_plugin.options import SINGLE_CPU_EXECUTOR


@contextmanager
def openmp_environment(config: VllmConfig) -> Iterator[None]:
    """For a `with` block in which the engine's process is started: the threads and the cores that
    vLLM gives a CPU worker, where that worker is in the engine's process.
    """
    if config.parallel_config.distributed_executor_backend != SINGLE_CPU_EXECUTOR:
        yield
        return
    with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
        yield


class AnnouncingQueue(Queue[Any]):
    """A queue that calls a function after every item."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As in `queue.Queue`."""
        super().put(item, block, timeout)
        self._announce()


class SingleCPUExecutor(UniProcExecutor):
    """vLLM's executor of a worker in the engine's process, whose multi-steps it interrupts."""

    def register_failure_callback(self, callback: Callable[[], None]) -> None:
        """vLLM's own; gives the engine, which has just got its worker, another input queue.

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
        runner: Any = self.driver_worker.worker.model_runner
        runner.is_interrupted = True
