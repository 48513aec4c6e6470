"""Where the time of an engine step goes: functions of vLLM and of the plugin that are timed.

The time of a timed function is its own: time spent in another timed function counts there. On CUDA
this is the host's time; the device works at the same time.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, NamedTuple

Part = str
SCHEDULER: Part = "scheduler"
INPUTS: Part = "input preparation"
BASE_MODEL: Part = "base model"
HEAD: Part = "language-model head"
SAMPLER: Part = "vLLM's sampler"
RESULTS: Part = "results of the step"
ENGINE: Part = "engine and runner, the rest"
OUTPUTS: Part = "output processing"
OURS: Part = "thoughts: plan and inputs"
THOUGHT: Part = "thoughts: base and mixing"
CHOICE: Part = "thoughts: sampling"
PARTS = (
    SCHEDULER,
    INPUTS,
    BASE_MODEL,
    HEAD,
    SAMPLER,
    RESULTS,
    ENGINE,
    OUTPUTS,
    OURS,
    THOUGHT,
    CHOICE,
)

_CORE, _FRONT = "vllm.v1.engine.core:EngineCore", "vllm.v1.engine.llm_engine:LLMEngine"
_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_LOGITS = "vllm.model_executor.layers.logits_processor:LogitsProcessor"
_PROCESSOR = "vllm.v1.engine.output_processor:OutputProcessor"
# By the function that is timed.
STOCK: dict[str, Part] = {
    f"{_FRONT}.step": OUTPUTS,
    f"{_PROCESSOR}.process_outputs": OUTPUTS,
    f"{_CORE}.step": ENGINE,
    f"{_SCHEDULER}.schedule": SCHEDULER,
    f"{_SCHEDULER}.update_from_output": SCHEDULER,
    f"{_RUNNER}.execute_model": ENGINE,
    f"{_RUNNER}.sample_tokens": ENGINE,
    f"{_RUNNER}._update_states": INPUTS,
    f"{_RUNNER}._prepare_inputs": INPUTS,
    f"{_RUNNER}._determine_batch_execution_and_padding": INPUTS,
    f"{_RUNNER}._get_slot_mappings": INPUTS,
    f"{_RUNNER}._build_attention_metadata": INPUTS,
    f"{_RUNNER}._preprocess": INPUTS,
    f"{_RUNNER}._model_forward": BASE_MODEL,
    f"{_LOGITS}.forward": HEAD,
    f"{_RUNNER}._sample": SAMPLER,
    f"{_RUNNER}._bookkeeping_sync": RESULTS,
}
_PLUGIN = "quietstar_infer.vllm_plugin"
_MIXIN = f"{_PLUGIN}.runner:ThinkingRunnerMixin"
_MULTI_STEP = f"{_PLUGIN}.multi_step:MultiStepMixin"
_STATE = f"{_PLUGIN}.thought_state:ThoughtState"
THINKING: dict[str, Part] = STOCK | {
    f"{_PLUGIN}.scheduler:ThinkingScheduler._update_after_schedule": OURS,
    f"{_MIXIN}.execute_model": OURS,
    f"{_MULTI_STEP}._prepare_pass": OURS,
    f"{_MULTI_STEP}._advance_decode_only_pass": OURS,
    f"{_MULTI_STEP}._forward": OURS,
    f"{_MIXIN}._update_states": OURS,
    f"{_MIXIN}._prepare_inputs": OURS,
    f"{_MIXIN}._model_forward": THOUGHT,
    f"{_MIXIN}.sample_tokens": CHOICE,
    f"{_MULTI_STEP}._end_first_pass": CHOICE,
    f"{_STATE}.process_logits": CHOICE,
    f"{_PLUGIN}.thought_sampler:ThoughtSampler.__call__": CHOICE,
    f"{_PLUGIN}.model:QuietStarMixin.compute_logits": HEAD,
}


class Breakdown(NamedTuple):
    """Seconds by part and in all (`elapsed`), of a load from its first visible tokens on."""

    seconds: dict[Part, float]
    elapsed: float


class Timers:
    """Stop watches of which one runs at a time: that of the timed function called last."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._running: list[Part] = []
        self._since = 0.0
        self.seconds: dict[Part, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def install(self, functions: dict[str, Part]) -> None:
        """Replace methods, given as module:Class.method, by timed ones for the rest of the process.

        Raises `AttributeError` for a method that does not exist.
        """
        for name, part in functions.items():
            module, _, path = name.partition(":")
            owner, _, method = path.rpartition(".")
            cls = getattr(import_module(module), owner)
            setattr(cls, method, self._timed(name, part, getattr(cls, method)))

    def reset(self) -> None:
        """Forget all times."""
        self.seconds.clear()
        self.calls.clear()

    def _timed(self, name: str, part: Part, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._running.append(part)
            self.calls[name] += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        """Add the time since the last switch to the part that was running."""
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
