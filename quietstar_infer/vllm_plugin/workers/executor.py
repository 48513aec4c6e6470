"""The executor of one CPU worker, in the engine's own process.

vLLM gives a worker a process of its own, also where there is one only, because OpenMP reads its
environment when a process starts: each engine step then waits twice for a message to pass, another
process imports everything at start, and keeps it. Here the engine's process is started in that
environment instead (`openmp_environment`). Replicas (data parallelism) are started in one, and
share the cores, unless the user has given each some.

While the worker runs a multi-step the engine schedules nothing. So every message that is put into
the engine's input queue (a new request, an aborted one, a call), which a thread of its own does,
ends the multi-step after the pass it is in. Not where there are several workers: they would not all
end it between the same two passes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getclosurevars
from queue import Queue
from typing import Any

import torch
from vllm import envs
from vllm.config import VllmConfig
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from quietstar_infer.vllm_plugin.options import SINGLE_CPU_EXECUTOR

_THREADS = "OMP_NUM_THREADS"
# Values of VLLM_CPU_OMP_THREADS_BIND that name no cores.
_NO_CORES = ("auto", "nobind")


@contextmanager
def openmp_environment(config: VllmConfig) -> Iterator[None]:
    """For a `with` block in which the engine's process is started: the threads and the cores that
    vLLM gives a CPU worker, where that worker is in the engine's process.
    """
    if config.parallel_config.distributed_executor_backend != SINGLE_CPU_EXECUTOR:
        yield
    elif config.parallel_config.data_parallel_size > 1:
        with _shared_cores(config.parallel_config.data_parallel_size_local):
            yield
    else:
        with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
            yield


@contextmanager
def _shared_cores(replicas: int) -> Iterator[None]:
    """Replicas with as many threads in all as there are cores. With more of them than cores,
    OpenMP's threads, which wait for each other without sleeping, keep each other from running: a
    request then takes minutes. (vLLM's own "auto" would bind all replicas to the same cores.)
    """
    if envs.VLLM_CPU_OMP_THREADS_BIND not in _NO_CORES or _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = str(max(1, len(os.sched_getaffinity(0)) // max(1, replicas)))
    try:
        yield
    finally:
        del os.environ[_THREADS]


def _keep_to_own_cores(config: VllmConfig) -> None:
    """In a replica's process: run on those of the user's cores that are this replica's."""
    is_replica = config.parallel_config.data_parallel_rank_local is not None
    if is_replica and envs.VLLM_CPU_OMP_THREADS_BIND not in _NO_CORES:
        (cores,) = OMPProcessManager(config).cpu_lists
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(len(cores))


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

    def _init_executor(self) -> None:
        _keep_to_own_cores(self.vllm_config)
        super()._init_executor()

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
