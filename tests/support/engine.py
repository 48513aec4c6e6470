"""The real engine in this process, step by step: tests decide when a request arrives."""

import gc
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import torch
from vllm import LLM, CompletionOutput, RequestOutput, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.core_client import InprocClient

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.metrics import ThoughtCounts
from quietstar_infer.vllm_plugin.options import (
    ThinkingOptions,
    default_thought_burst,
    prepare_engine_args,
    thinking_setup,
)
from tests.support.asynchronous import asynchronous_cpu

# The tokens of a KV block: prompts and thoughts of the tests lie around its boundaries.
BLOCK = 32
# Long enough for every test; short contexts keep the KV cache small.
ENGINE_ARGS: dict[str, Any] = {
    "block_size": BLOCK,
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_logprobs": -1,
    "max_model_len": 512,
    "max_num_seqs": 64,
    "disable_log_stats": False,
    "seed": 0,
}
MAX_LOGGED = 40
# How engine steps follow one another. The log of thoughts is small enough to be filled.
SCHEDULES: dict[str, dict[str, Any]] = {
    name: {
        "options": ThinkingOptions(
            max_recorded_thought_tokens=MAX_LOGGED,
            max_thought_burst=max_passes,
            speculative_thoughts=max_drafts,
        ),
        "asynchronous": asynchronous,
    }
    for name, asynchronous, max_passes, max_drafts in (
        ("synchronous", False, 1, 0),
        ("asynchronous", True, 1, 0),
        ("multi-step", False, 4, 0),
        ("speculative", False, 4, 8),
    )
}


@dataclass(frozen=True)
class Ask:
    """One request. `arrival` is the engine step before which it arrives."""

    prompt: Sequence[int]
    thoughts: ThoughtParams
    sampling: dict[str, Any] = field(default_factory=dict)
    arrival: int = 0


class Answer(NamedTuple):
    """One of a request's `n` answers. `logprobs` are vLLM's own of the tokens, if asked for."""

    token_ids: list[int]
    text: str
    finish_reason: str | None
    thoughts: list[list[int]]
    mixing_weights: list[float | None]
    base_logprobs: list[float]
    mixed_logprobs: list[float]
    logprobs: list[float]
    expected_gains: list[float]


class Engine:
    """vLLM's engine, and what tests want to see inside."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        # Calls of `step` so far.
        self.num_steps = 0
        self._keys = itertools.count()

    @property
    def scheduler(self) -> Any:
        client = self.llm.llm_engine.engine_core
        assert isinstance(client, InprocClient)
        return client.engine_core.scheduler

    @property
    def is_asynchronous(self) -> bool:
        """Whether the scheduler runs a step ahead of the results."""
        return bool(self.llm.llm_engine.vllm_config.scheduler_config.async_scheduling)

    @property
    def max_passes(self) -> int:
        """How many passes an engine step may run."""
        return thinking_setup(self.llm.llm_engine.vllm_config).max_thought_burst

    @property
    def preemptions(self) -> int:
        """How many times requests were preempted since the engine started."""
        return self.metric("vllm:num_preemptions")

    def metric(self, name: str) -> int:
        """The sum of a counter of vLLM's since the engine started."""
        return sum(
            getattr(metric, "value", 0) for metric in self.llm.get_metrics() if metric.name == name
        )

    def add(self, ask: Ask) -> str:
        """Send a request without running the engine; returns its id and record key."""
        key = f"ask-{next(self._keys)}"
        fields = {**ask.thoughts.to_mapping(), "thought_record_key": key}
        sampling = SamplingParams(
            **{"temperature": 0.0, **ask.sampling},
            extra_args=fields,
            # All of a request's `n` answers in one output.
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self.llm.llm_engine.add_request(
            key, TokensPrompt(prompt_token_ids=list(ask.prompt)), sampling
        )
        return key

    def step(self) -> list[RequestOutput]:
        self.num_steps += 1
        return [out for out in self.llm.llm_engine.step() if isinstance(out, RequestOutput)]

    def drain(self) -> None:
        """Run until all requests have ended and the workers know it."""
        while self.llm.llm_engine.has_unfinished_requests():
            self.step()
        self.step()

    def abort(self, key: str) -> None:
        """Abort a request, run the others to their ends, and forget what it thought."""
        self.llm.llm_engine.abort_request([key])
        self.drain()
        self.llm.collective_rpc("drop_thoughts", args=(key,))

    def run(self, asks: Sequence[Ask]) -> list[list[Answer]]:
        """Answers to all requests, in their order, each a list of `n`."""
        waiting = sorted(range(len(asks)), key=lambda i: asks[i].arrival, reverse=True)
        key_of: dict[str, int] = {}
        outputs: dict[int, RequestOutput] = {}
        for step in itertools.count():
            while waiting and asks[waiting[-1]].arrival <= step:
                index = waiting.pop()
                key_of[self.add(asks[index])] = index
            for output in self.step():
                if output.finished:
                    outputs[key_of[output.request_id]] = output
            if not waiting and not self.llm.llm_engine.has_unfinished_requests():
                break
        answers = [self._answers(outputs[index]) for index in range(len(asks))]
        assert [len(answer) for answer in answers] == [ask.sampling.get("n", 1) for ask in asks]
        return answers

    def _answers(self, output: RequestOutput) -> list[Answer]:
        """Pair the answers with what the worker logged; a child's id begins with its number."""
        logged: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for request_id, thoughts in self.take_thoughts(output.request_id).items():
            child = 0 if len(output.outputs) == 1 else int(request_id.partition("_")[0])
            logged[child] = thoughts
        return [_answer(each, logged[child]) for child, each in enumerate(output.outputs)]

    def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """What the first rank logged under a key; the others must have logged the same."""
        first, *others = self._ask_last_stage("take_thoughts", key)
        for other in others:
            assert {k: [t["token_ids"] for t in v] for k, v in other.items()} == {
                k: [t["token_ids"] for t in v] for k, v in first.items()
            }
        result: dict[str, list[dict[str, Any]]] = first
        return result

    def thought_counts(self) -> ThoughtCounts:
        """What has been counted since the engine started, by every rank of the last stage alike."""
        first, *others = self._ask_last_stage("thought_metrics")
        assert all(other == first for other in others)
        return ThoughtCounts(**{name: first[name] for name in ThoughtCounts._fields})

    def thought_usage(self) -> dict[str, int]:
        """What thoughts hold on all ranks together, less what tensor parallelism holds twice."""
        by_rank = self.llm.collective_rpc("thought_usage")[:: self._parallel.tensor_parallel_size]
        return {name: sum(usage[name] for usage in by_rank) for name in by_rank[0]}

    def _ask_last_stage(self, method: str, *args: Any) -> list[Any]:
        """What the ranks answer that sample."""
        return self.llm.collective_rpc(method, args=args)[-self._parallel.tensor_parallel_size :]

    @property
    def _parallel(self) -> Any:
        return self.llm.llm_engine.vllm_config.parallel_config


def _answer(completion: CompletionOutput, logged: list[dict[str, Any]]) -> Answer:
    # A step that was on its way when the answer ended leaves a thought too many.
    thoughts = [thought for thought in logged if thought["index"] < len(completion.token_ids)]
    return Answer(
        list(completion.token_ids),
        completion.text,
        completion.finish_reason,
        [thought["token_ids"] for thought in thoughts],
        [thought["mixing_weight"] for thought in thoughts],
        [thought["base_logprob"] for thought in thoughts],
        [thought["mixed_logprob"] for thought in thoughts],
        _logprobs(completion),
        [thought["expected_gain"] for thought in thoughts],
    )


def _logprobs(completion: CompletionOutput) -> list[float]:
    if completion.logprobs is None:
        return []
    by_token = zip(completion.token_ids, completion.logprobs, strict=True)
    return [top[token].logprob for token, top in by_token if top is not None]


@contextmanager
def thinking_engine(
    checkpoint: Path,
    options: ThinkingOptions | None = None,
    asynchronous: bool = False,
    **engine_args: Any,
) -> Iterator[Engine]:
    """Our engine on a checkpoint; on the CPU, `asynchronous` needs the stand-in for CUDA."""
    args = EngineArgs(model=str(checkpoint), **{**ENGINE_ARGS, **engine_args})
    prepare_engine_args(args, options or ThinkingOptions())
    with ExitStack() as stack:
        with asynchronous_cpu() if asynchronous else nullcontext():
            llm = stack.enter_context(_running(args))
        engine = Engine(llm)
        assert engine.is_asynchronous == asynchronous or torch.cuda.is_available()
        yield engine


@contextmanager
def stock_engine(checkpoint: Path, **engine_args: Any) -> Iterator[LLM]:
    """vLLM as it is, without our plugin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "")
        with _running(EngineArgs(model=str(checkpoint), **{**ENGINE_ARGS, **engine_args})) as llm:
            yield llm


_num_running = 0


@contextmanager
def _running(engine_args: EngineArgs) -> Iterator[LLM]:
    global _num_running
    llm = LLM.from_engine_args(engine_args)
    _num_running += 1
    try:
        yield llm
    finally:
        _num_running -= 1
        with pytest.MonkeyPatch.context() as patch:
            if _num_running > 0:
                # All engines of a process share one distributed environment, which vLLM destroys
                # with any of them.
                patch.setattr("vllm.v1.engine.core.cleanup_dist_env_and_memory", lambda: None)
            llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


class EnginePool:
    """Engines by their options: each is started once, and runs until the pool is left or full."""

    # A tiny engine holds its KV cache and little more.
    MAX_ENGINES = 8

    def __init__(self) -> None:
        self._engines: dict[object, tuple[Engine, AbstractContextManager[Engine]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all engines, for a test that needs the process or the machine for itself."""
        for key in list(self._engines):
            self._stop(key)

    def get(
        self,
        checkpoint: Path,
        options: ThinkingOptions | None = None,
        asynchronous: bool = False,
        **engine_args: Any,
    ) -> Engine:
        """An engine with these options (see `thinking_engine`) that has no requests, but may have
        had some.
        """
        key = (checkpoint, _explicit(options), asynchronous, tuple(sorted(engine_args.items())))
        if key in self._engines:
            engine, _ = self._engines[key]
            if not engine.llm.llm_engine.has_unfinished_requests():
                self._engines[key] = self._engines.pop(key)  # last to be stopped
                return engine
            self._stop(key)  # left behind by a test that failed
        while len(self._engines) >= self.MAX_ENGINES:
            self._stop(next(iter(self._engines)))
        context = thinking_engine(checkpoint, options, asynchronous, **engine_args)
        self._engines[key] = context.__enter__(), context
        return self._engines[key][0]

    def _stop(self, key: object) -> None:
        _, context = self._engines.pop(key)
        context.__exit__(None, None, None)


def _explicit(options: ThinkingOptions | None) -> ThinkingOptions:
    options = options or ThinkingOptions()
    return replace(options, max_thought_burst=options.max_thought_burst or default_thought_burst())
