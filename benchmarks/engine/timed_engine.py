"""A process with a whole engine in it, whose steps are timed part by part.

`python -m benchmarks.engine.timed_engine FD`, controlled like `served_engine`: an `EngineSpec`,
then loads without background requests, each answered with a `Breakdown`. vLLM starts no further
processes here, so no messages pass between them; and the front end's work comes after a step, where
a server does it at the same time as the next one.
"""

import itertools
import sys
import time
from multiprocessing.connection import Connection

import torch
from vllm import LLM
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import TokensPrompt
from vllm.platforms import current_platform
from vllm.utils.cpu_resource_utils import get_allowed_cpu_list

from benchmarks.engine.load import Load
from benchmarks.engine.served_engine import prepare, sampling_params
from benchmarks.engine.spec import EngineSpec
from benchmarks.engine.timers import STOCK, THINKING, Breakdown, Timers


class TimedEngine:
    """An engine in this process and its timers."""

    def __init__(self, spec: EngineSpec) -> None:
        engine_args = EngineArgs(disable_log_stats=False, **spec.arguments)
        prepare(spec, engine_args)
        if current_platform.is_cpu():
            torch.set_num_threads(worker_threads())
        self._spec = spec
        self._timers = Timers()
        self._timers.install(STOCK if spec.thinking is None else THINKING)
        self._engine = LLM.from_engine_args(engine_args).llm_engine
        self._ids = itertools.count()

    def run(self, load: Load) -> Breakdown:
        """Send all requests, and time the engine from their first visible tokens to the last."""
        waiting = set()
        for request in load.requests:
            key = f"request-{next(self._ids)}"
            prompt = TokensPrompt(prompt_token_ids=list(request.prompt))
            self._engine.add_request(key, prompt, sampling_params(self._spec, request))
            waiting.add(key)
        while waiting:
            waiting -= {output.request_id for output in self._engine.step()}
        self._timers.reset()
        start = time.perf_counter()
        while self._engine.has_unfinished_requests():
            self._engine.step()
        return Breakdown(dict(self._timers.seconds), time.perf_counter() - start)


def worker_threads() -> int:
    """The threads that vLLM gives the worker of a server: one per physical core, less the core of
    the engine.
    """
    cores = {(cpu.numa_node, cpu.physical_core) for cpu in get_allowed_cpu_list()}
    return max(1, len(cores) - 1)


def time_loads(pipe: Connection) -> None:
    """Start the engine of the first message, and time loads until the pipe's other end closes."""
    engine = TimedEngine(pipe.recv())
    pipe.send(None)
    while True:
        try:
            load: Load = pipe.recv()
        except EOFError:
            return
        pipe.send(engine.run(load))


if __name__ == "__main__":
    time_loads(Connection(int(sys.argv[1])))
