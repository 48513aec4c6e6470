"""A process with an engine as the server runs it, controlled through a pipe.

`python -m benchmarks.engine.served_engine FD`: FD is the pipe's file descriptor. The first message
is an `EngineSpec`, answered with None when the engine has started; every further one is a `Load`,
answered with the `Times` of its requests. vLLM's processes are those of a server: this one, with
the asynchronous front end, the engine core's, and the workers' where vLLM starts any.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from multiprocessing.connection import Connection

from vllm import RequestOutput, SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from benchmarks.engine.load import Load, Request, Times
from benchmarks.engine.spec import EngineSpec


def prepare(spec: EngineSpec, engine_args: EngineArgs) -> None:
    """Add the options of thinking to the engine's arguments, unless it is stock vLLM's."""
    if spec.thinking is not None:
        # Imported here, so that the process of a stock engine loads nothing of the plugin.
        from quietstar_infer.vllm_plugin.options import ThinkingOptions, prepare_engine_args

        prepare_engine_args(engine_args, ThinkingOptions(**spec.thinking))


def sampling_params(spec: EngineSpec, request: Request) -> SamplingParams:
    """vLLM's parameters of a request; no answer ends before its last token."""
    thoughts = {
        "thought_budget": request.budget,
        "thought_temperature": request.temperature,
        "thought_threshold": request.threshold,
        "thought_forced_tokens": request.text,
    }
    return SamplingParams(
        temperature=request.temperature,
        ignore_eos=True,
        max_tokens=request.tokens,
        extra_args=None if spec.thinking is None else thoughts,
        output_kind=RequestOutputKind.DELTA,
    )


class LoadedEngine:
    """An engine that runs loads."""

    def __init__(self, spec: EngineSpec, client: AsyncLLM) -> None:
        self._spec = spec
        self._client = client
        self._ids = itertools.count()

    async def run(self, load: Load) -> list[Times]:
        """Send the measured requests of a load and wait for their answers."""
        async with self._background(load.background):
            if load.gaps:
                return [
                    await self._timed_after(gap, request)
                    for gap, request in zip(load.gaps, load.requests, strict=True)
                ]
            return await asyncio.gather(*(self._timed(request) for request in load.requests))

    async def _timed_after(self, gap: float, request: Request) -> Times:
        await asyncio.sleep(gap)
        return await self._timed(request)

    async def _timed(self, request: Request) -> Times:
        sent = time.perf_counter()
        arrivals = [(time.perf_counter(), tokens) async for tokens in self._answer(request)]
        assert sum(tokens for _, tokens in arrivals) == request.tokens
        return Times(sent, arrivals[0][0], arrivals[-1][0], request.tokens)

    @asynccontextmanager
    async def _background(self, requests: tuple[Request, ...]) -> AsyncIterator[None]:
        """Keep these requests in the batch; all of them are decoding when the block begins."""
        decoding = [asyncio.Event() for _ in requests]
        tasks = [
            asyncio.create_task(self._repeat(request, event))
            for request, event in zip(requests, decoding, strict=True)
        ]
        try:
            for event in decoding:
                await event.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, request: Request, decoding: asyncio.Event) -> None:
        """Send a request again and again until cancelled."""
        while True:
            async for _ in self._answer(request):
                decoding.set()

    async def _answer(self, request: Request) -> AsyncIterator[int]:
        """The number of visible tokens of each output, when it arrives."""
        outputs = self._client.generate(
            TokensPrompt(prompt_token_ids=list(request.prompt)),
            sampling_params(self._spec, request),
            f"request-{next(self._ids)}",
        )
        async for output in outputs:
            assert isinstance(output, RequestOutput)
            yield len(output.outputs[0].token_ids)


def start(spec: EngineSpec, engine_args: AsyncEngineArgs) -> AsyncLLM:
    """The engine, in processes of its own, as a server has it."""
    usage = UsageContext.OPENAI_API_SERVER
    config = engine_args.create_engine_config(usage_context=usage)
    environment: AbstractContextManager[None] = nullcontext()
    if spec.thinking is not None:
        from quietstar_infer.vllm_plugin.workers.executor import openmp_environment

        environment = openmp_environment(config)
    with environment:
        return AsyncLLM.from_vllm_config(config, usage_context=usage)


async def serve_loads(pipe: Connection) -> None:
    """Start the engine of the first message, and run loads until the pipe's other end closes."""
    spec: EngineSpec = pipe.recv()
    engine_args = AsyncEngineArgs(**spec.arguments)
    prepare(spec, engine_args)
    client = start(spec, engine_args)
    engine = LoadedEngine(spec, client)
    try:
        pipe.send(None)
        while True:
            load: Load = await asyncio.to_thread(pipe.recv)
            pipe.send(await engine.run(load))
    except EOFError:
        pass
    finally:
        client.shutdown()


if __name__ == "__main__":
    asyncio.run(serve_loads(Connection(int(sys.argv[1]))))
