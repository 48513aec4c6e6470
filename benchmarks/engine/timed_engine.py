"""A process with an engine all in itself, whose steps are timed part by part.

`python -m benchmarks.engine.timed_engine FD`, spoken to like `engine`: an `EngineSpec`, then
loads of asks only, each answered with a `Breakdown`. vLLM has no processes of its own here, so no
hops between them; and what its front end does comes after a step, where a server does it beside the
next one.
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

from benchmarks.engine.served_engine import prepare, sampling_params
from benchmarks.engine.load import Load
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
        """Send all asks and time the engine until they are answered."""
        waiting = set()
        for ask in load.requests:
            key = f"ask-{next(self._ids)}"
            prompt = TokensPrompt(prompt_token_ids=list(ask.prompt))
            self._engine.add_request(key, prompt, sampling_params(self._spec, ask))
            waiting.add(key)
        while waiting:
            waiting -= {output.request_id for output in self._engine.step()}
        self._timers.reset()
        start = time.perf_counter()
        while self._engine.has_unfinished_requests():
            self._engine.step()
        return Breakdown(dict(self._timers.seconds), time.perf_counter() - start)


def worker_threads() -> int:
    """How many cores vLLM gives the worker in a server: one thread to a core, and one core to the
    engine.
    """
    cores = {(cpu.numa_node, cpu.physical_core) for cpu in get_allowed_cpu_list()}
    return max(1, len(cores) - 1)


def serve(pipe: Connection) -> None:
    """Start the engine that is asked for, and time loads until the pipe's other end closes."""
    engine = TimedEngine(pipe.recv())
    pipe.send(None)
    while True:
        try:
            load: Load = pipe.recv()
        except EOFError:
            return
        pipe.send(engine.run(load))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
