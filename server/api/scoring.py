"""Log-probabilities of given text, each token predicted after a thought about the text before it
(with a threshold: where one is expected to pay).

vLLM's serving layer asks for a prompt's log-probabilities (`echo` with `logprobs`,
`prompt_logprobs`) in the same request as for its completion, and its engine computes them in the
prefill. A thinking model has to think at every position first. Positions do not depend on each
other once the text is given, so a prompt of n tokens is split into requests that think in the same
batch:

    prefill    x_0 … x_{n-1}   once, without a thought: its KV goes into the prefix cache
    segment s  x_0 … x_{sL}    then x_{sL+1} … x_{(s+1)L}

A segment's prompt comes from the prefix cache, and the L tokens that follow it are not sampled but
given (`forced_tokens`), so that each costs what a visible token costs: b + 1 passes of one
sequence, or, with a threshold, one where it is not thought about and b + 2 where it is. With a free
sequence of the batch for every position, L is 1 and the prompt takes b + 1 steps; a longer prompt
takes longer segments rather than more sequences. A segment that does not start at a block of the KV
cache prefills the rest of that block again, in its first pass.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from quietstar_infer.params import ThoughtParams
from server.api.failed_generation import without_failures
from server.engine.engine import Engine
from server.vllm_api import (
    EngineInput,
    Logprob,
    RequestOutput,
    RequestOutputKind,
    SamplingParams,
    tokens_input,
)

_TokenLogprobs: TypeAlias = dict[int, Logprob]
_RecordedThought: TypeAlias = Mapping[str, Any]


class Segment(NamedTuple):
    """Consecutive tokens of a prompt that one request scores: from `start` up to `end`."""

    start: int
    end: int

    @property
    def num_tokens(self) -> int:
        return self.end - self.start


class ScoredTokens(NamedTuple):
    """By token: its log-probability together with those of the likeliest tokens, and the thought
    before it, if that was recorded."""

    logprobs: list[_TokenLogprobs]
    thoughts: list[_RecordedThought | None]


class PromptScores(NamedTuple):
    """By token of the prompt; the first has neither, because nothing predicts it."""

    logprobs: list[_TokenLogprobs | None]
    thoughts: list[_RecordedThought | None]


def split(num_tokens: int, max_rows: int, block_size: int) -> list[Segment]:
    """The segments of a prompt: of one token each if `max_rows` suffice for that, else as long as
    they must be, up to a block.

    Lengths are powers of two, as block sizes are: segments as long as blocks start where blocks do,
    and nothing is prefilled twice.
    """
    length = 1
    while length < block_size and length * max_rows < num_tokens - 1:
        length *= 2
    return [
        Segment(start, min(start + length, num_tokens)) for start in range(1, num_tokens, length)
    ]


def prompt_scores(output: RequestOutput) -> PromptScores | None:
    """The scores of an output's prompt, if `PromptScorer` made the output."""
    return getattr(output, "prompt_scores", None)


def with_params(sampling_params: SamplingParams, params: ThoughtParams) -> dict[str, Any]:
    """`SamplingParams.extra_args` that tell the engine how to think."""
    return {**(sampling_params.extra_args or {}), **params.to_mapping()}


class PromptScorer:
    """Gives `prompt_logprobs` to requests that think.

    All scoring requests together take at most `max_rows` sequences of the batch, so that other
    requests find room beside them.
    """

    def __init__(self, engine: Engine, max_rows: int) -> None:
        self._engine = engine
        self._client = engine.client
        self._max_rows = max_rows
        self._rows = asyncio.Semaphore(max_rows)

    def generate(
        self,
        prompt: EngineInput,
        sampling_params: SamplingParams,
        params: ThoughtParams,
        usage_key: str | None,
        request_id: str,
        options: dict[str, Any],
    ) -> AsyncGenerator[RequestOutput]:
        """As vLLM's `AsyncLLM.generate`, with which `options` are shared, for a prompt that is to
        be scored as `sampling_params.prompt_logprobs` says. `usage_key`: of the scoring."""
        num_logprobs = sampling_params.prompt_logprobs
        assert num_logprobs is not None
        scoring = _Scoring(
            prompt, num_logprobs, params, usage_key, sampling_params.seed, request_id, options
        )
        return self._generate_scored(scoring, sampling_params)

    async def _generate_scored(
        self, scoring: "_Scoring", sampling_params: SamplingParams
    ) -> AsyncGenerator[RequestOutput]:
        unscored = sampling_params.clone()
        unscored.prompt_logprobs = None
        unscored.extra_args = with_params(unscored, scoring.params)
        completion = self._client.generate(
            scoring.prompt, unscored, scoring.request_id, **scoring.options
        )
        async with aclosing(completion):
            await self._prefill(scoring)
            # The completion's first token is one more position.
            output, *scored = await _together(
                anext(completion), *(self._score_segment(scoring, s) for s in self._split(scoring))
            )
            scores = PromptScores(
                [None, *chain.from_iterable(segment.logprobs for segment in scored)],
                [None, *chain.from_iterable(segment.thoughts for segment in scored)],
            )
            yield _with_scores(output, scores)
            async for output in completion:
                yield _with_scores(output, scores)

    def _split(self, scoring: "_Scoring") -> list[Segment]:
        return split(len(scoring.token_ids), self._max_rows, self._engine.block_size)

    async def _prefill(self, scoring: "_Scoring") -> None:
        """Prefill the text once, for the prefix cache."""
        if len(scoring.token_ids) > self._engine.block_size:
            await self._finish(scoring, len(scoring.token_ids), "prefill", scoring.prefilling())

    async def _score_segment(self, scoring: "_Scoring", segment: Segment) -> ScoredTokens:
        key = secrets.token_urlsafe() if scoring.params.record_key is not None else None
        sampling_params = scoring.forcing(segment, key)
        async with self._rows:
            output = await self._finish(scoring, segment.start, str(segment.start), sampling_params)
        (completion,) = output.outputs
        assert isinstance(completion.logprobs, list), "flat ones were not asked for"
        thoughts = await self._take(key) if key is not None else {}
        return ScoredTokens(
            completion.logprobs, [thoughts.get(index) for index in range(segment.num_tokens)]
        )

    async def _take(self, key: str) -> dict[int, _RecordedThought]:
        """The thoughts recorded under a key, by the index of the token that each came before."""
        by_request = await self._engine.take_thoughts(key)
        return {
            thought["index"]: thought for thoughts in by_request.values() for thought in thoughts
        }

    async def _finish(
        self, scoring: "_Scoring", num_tokens: int, name: str, sampling_params: SamplingParams
    ) -> RequestOutput:
        """The only output of a request whose prompt is the text's first tokens."""
        prompt = scoring.beginning(num_tokens)
        request_id = f"{scoring.request_id}-score-{name}"
        outputs = without_failures(
            self._client.generate(prompt, sampling_params, request_id, **scoring.options)
        )
        # Closed explicitly, so that a cancellation reaches the engine as an abort.
        async with aclosing(outputs):
            return await anext(outputs)


def _with_scores(output: RequestOutput, scores: PromptScores) -> RequestOutput:
    output.prompt_logprobs = scores.logprobs
    output.prompt_scores = scores  # type: ignore[attr-defined]  # see `prompt_scores`
    return output


async def _together(*jobs: Awaitable[Any]) -> list[Any]:
    """The jobs' results; if one fails the others are cancelled, and its own error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_run(job)) for job in jobs]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _run(job: Awaitable[Any]) -> Any:
    return await job


class _Scoring(NamedTuple):
    """One text to be scored, and the sampling parameters of the requests that do it."""

    prompt: EngineInput
    num_logprobs: int
    params: ThoughtParams
    usage_key: str | None
    seed: int | None
    request_id: str
    options: dict[str, Any]

    @property
    def token_ids(self) -> list[int]:
        assert self.prompt["type"] == "token", "models of text only, whose prompts are tokens"
        return self.prompt["prompt_token_ids"]

    def beginning(self, num_tokens: int) -> EngineInput:
        """The text's first tokens as a prompt, with the salt of the whole text's cache entry."""
        salt = self.prompt.get("cache_salt")
        assert salt is None or isinstance(salt, str)
        return tokens_input(self.token_ids[:num_tokens], cache_salt=salt)

    def prefilling(self) -> SamplingParams:
        """Of the request that only prefills the text."""
        params = replace(self.params, budget=0, record_key=None, usage_key=None)
        return self._sampling_params(params, 1)

    def forcing(self, segment: Segment, record_key: str | None) -> SamplingParams:
        """Of the request that scores a segment."""
        tokens = tuple(self.token_ids[segment.start : segment.end])
        params = replace(
            self.params, forced_tokens=tokens, record_key=record_key, usage_key=self.usage_key
        )
        return self._sampling_params(params, len(tokens), self.num_logprobs)

    def _sampling_params(
        self, params: ThoughtParams, num_tokens: int, num_logprobs: int | None = None
    ) -> SamplingParams:
        return SamplingParams(
            max_tokens=num_tokens,
            temperature=0.0,
            logprobs=num_logprobs,
            seed=self.seed,
            # The text may contain it.
            ignore_eos=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=params.to_mapping(),
        )
