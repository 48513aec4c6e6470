"""A process with an engine as the server runs it, told what to do through a pipe.

`python -m benchmarks.engine.served_engine FD`: FD is the pipe's end. An `EngineSpec` comes first
and is answered with None when the engine runs, then every `Load` is answered with the `Times` of
its asks. vLLM's processes are those of a server: this one, with its asynchronous front end, the
engine's, and where vLLM wants them the workers'.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection

from vllm import RequestOutput, SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from benchmarks.engine.load import Request, Load, Times
from benchmarks.engine.spec import EngineSpec


def prepare(spec: EngineSpec, engine_args: EngineArgs) -> None:
    """Make the engine think, if it is to."""
    if spec.thinking is not None:
        # Here, so that a stock engine's process has none of it.
        from quietstar_infer.vllm_plugin.options import ThinkingOptions, prepare_engine_args

        prepare_engine_args(engine_args, ThinkingOptions(**spec.thinking))


def sampling_params(spec: EngineSpec, ask: Request) -> SamplingParams:
    """Sampled at temperature 1, the API's default, to the last token."""
    thoughts = None if spec.thinking is None else {"thought_budget": ask.budget}
    return SamplingParams(
        temperature=1.0,
        ignore_eos=True,
        max_tokens=ask.tokens,
        extra_args=thoughts,
        output_kind=RequestOutputKind.DELTA,
    )


class LoadedEngine:
    """An engine and what is asked of it."""

    def __init__(self, spec: EngineSpec, client: AsyncLLM) -> None:
        self._spec = spec
        self._client = client
        self._ids = itertools.count()

    async def run(self, load: Load) -> list[Times]:
        """Request, and wait for all answers."""
        async with self._company(load.company):
            if load.gaps:
                return [
                    await self._after(gap, ask)
                    for gap, ask in zip(load.gaps, load.requests, strict=True)
                ]
            return await asyncio.gather(*(self._ask(ask) for ask in load.requests))

    async def _after(self, gap: float, ask: Request) -> Times:
        await asyncio.sleep(gap)
        return await self._ask(ask)

    async def _ask(self, ask: Request) -> Times:
        sent = time.perf_counter()
        arrivals = [(time.perf_counter(), tokens) async for tokens in self._answer(ask)]
        assert sum(tokens for _, tokens in arrivals) == ask.tokens
        return Times(sent, arrivals[0][0], arrivals[-1][0], ask.tokens)

    @asynccontextmanager
    async def _company(self, company: tuple[Request, ...]) -> AsyncIterator[None]:
        speaking = [asyncio.Event() for _ in company]
        tasks = [
            asyncio.create_task(self._again_and_again(ask, event))
            for ask, event in zip(company, speaking, strict=True)
        ]
        try:
            for event in speaking:
                await event.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _again_and_again(self, ask: Request, speaking: asyncio.Event) -> None:
        while True:
            async for _ in self._answer(ask):
                speaking.set()

    async def _answer(self, ask: Request) -> AsyncIterator[int]:
        """How many visible tokens came, whenever some came."""
        outputs = self._client.generate(
            TokensPrompt(prompt_token_ids=list(ask.prompt)),
            sampling_params(self._spec, ask),
            f"ask-{next(self._ids)}",
        )
        async for output in outputs:
            assert isinstance(output, RequestOutput)
            yield len(output.outputs[0].token_ids)


async def serve(pipe: Connection) -> None:
    """Start the engine that is asked for, and run loads until the pipe's other end closes."""
    spec: EngineSpec = pipe.recv()
    engine_args = AsyncEngineArgs(**spec.arguments)
    prepare(spec, engine_args)
    client = AsyncLLM.from_engine_args(engine_args, usage_context=UsageContext.OPENAI_API_SERVER)
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
    asyncio.run(serve(Connection(int(sys.argv[1]))))
