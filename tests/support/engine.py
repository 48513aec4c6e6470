"""The real engine in this process, step by step: tests say when a request arrives."""

import gc
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from vllm import LLM, CompletionOutput, RequestOutput, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.core_client import InprocClient

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.metrics import ThoughtCounts
from quietstar_infer.vllm_plugin.options import (
    ThinkingOptions,
    prepare_engine_args,
    thinking_setup,
)
from tests.support.asynchronous import asynchronous_cpu

# Long enough for every test; short contexts keep the KV cache small.
ENGINE_ARGS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_model_len": 512,
    "max_num_seqs": 64,
    "disable_log_stats": False,
    "seed": 0,
}


@dataclass(frozen=True)
class Ask:
    """One request. `arrival` is the engine step before which it arrives."""

    prompt: Sequence[int]
    thoughts: ThoughtParams
    sampling: dict[str, Any] = field(default_factory=dict)
    arrival: int = 0


class Spoken(NamedTuple):
    """One of a request's `n` answers. `logprobs` are vLLM's own of the tokens, if asked for."""

    token_ids: list[int]
    text: str
    finish_reason: str | None
    thoughts: list[list[int]]
    mixing_weights: list[float]
    base_logprobs: list[float]
    mixed_logprobs: list[float]
    logprobs: list[float]


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
    def max_burst(self) -> int:
        """How many passes a step may run."""
        return thinking_setup(self.llm.llm_engine.vllm_config).max_thought_burst

    @property
    def preemptions(self) -> int:
        """How many times requests were preempted since the engine started."""
        return sum(
            getattr(metric, "value", 0)
            for metric in self.llm.get_metrics()
            if metric.name == "vllm:num_preemptions"
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

    def run(self, asks: Sequence[Ask]) -> list[list[Spoken]]:
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
        answers = [self._spoken(outputs[index]) for index in range(len(asks))]
        assert [len(answer) for answer in answers] == [ask.sampling.get("n", 1) for ask in asks]
        return answers

    def _spoken(self, output: RequestOutput) -> list[Spoken]:
        """Pair the answers with what the worker recorded; a child's id begins with its number."""
        recorded: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for request_id, thoughts in self.take_thoughts(output.request_id).items():
            child = 0 if len(output.outputs) == 1 else int(request_id.partition("_")[0])
            recorded[child] = thoughts
        return [_spoken(answer, recorded[child]) for child, answer in enumerate(output.outputs)]

    def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """What the first rank recorded under a key; the others must have recorded the same."""
        first, *others = self.llm.collective_rpc("take_thoughts", args=(key,))
        for other in others:
            assert {k: [t["token_ids"] for t in v] for k, v in other.items()} == {
                k: [t["token_ids"] for t in v] for k, v in first.items()
            }
        result: dict[str, list[dict[str, Any]]] = first
        return result

    def thought_counts(self) -> ThoughtCounts:
        """What has been counted since the engine started, by every rank alike."""
        first, *others = self.llm.collective_rpc("thought_metrics")
        assert all(other == first for other in others)
        return ThoughtCounts(**{name: first[name] for name in ThoughtCounts._fields})

    def thought_usage(self) -> dict[str, int]:
        usage: dict[str, int] = self.llm.collective_rpc("thought_usage")[0]
        return usage


def _spoken(answer: CompletionOutput, recorded: list[dict[str, Any]]) -> Spoken:
    # A step that was on its way when the answer ended leaves a thought too many.
    thoughts = [thought for thought in recorded if thought["index"] < len(answer.token_ids)]
    return Spoken(
        list(answer.token_ids),
        answer.text,
        answer.finish_reason,
        [thought["token_ids"] for thought in thoughts],
        [thought["mixing_weight"] for thought in thoughts],
        [thought["base_logprob"] for thought in thoughts],
        [thought["mixed_logprob"] for thought in thoughts],
        _logprobs(answer),
    )


def _logprobs(answer: CompletionOutput) -> list[float]:
    if answer.logprobs is None:
        return []
    by_token = zip(answer.token_ids, answer.logprobs, strict=True)
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
    with asynchronous_cpu() if asynchronous else nullcontext(), _running(args) as llm:
        engine = Engine(llm)
        assert engine.is_asynchronous == asynchronous or torch.cuda.is_available()
        yield engine


@contextmanager
def stock_engine(checkpoint: Path, **engine_args: Any) -> Iterator[LLM]:
    """vLLM as it is, none of ours in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "")
        with _running(EngineArgs(model=str(checkpoint), **{**ENGINE_ARGS, **engine_args})) as llm:
            yield llm


@contextmanager
def _running(engine_args: EngineArgs) -> Iterator[LLM]:
    llm = LLM.from_engine_args(engine_args)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
        gc.collect()
