"""What is changed of the engine's outputs before vLLM makes a response of them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.vllm_api import RequestOutput


async def with_prompt_logprobs(
    outputs: AsyncGenerator[RequestOutput],
) -> AsyncGenerator[RequestOutput]:
    """A stream of several choices, with the log-probabilities of their prompt in each output.

    In vLLM each choice has them with its first token only, and of two outputs that are merged,
    because the client is slow, those of the second are lost: its stream then fails with a
    `KeyError`. Can go when that does not happen.
    """
    logprobs = None
    async with aclosing(outputs):
        async for output in outputs:
            logprobs = logprobs or output.prompt_logprobs
            output.prompt_logprobs = logprobs
            yield output


async def without_tokens(outputs: AsyncGenerator[RequestOutput]) -> AsyncGenerator[RequestOutput]:
    """Those of a request for no tokens: vLLM samples one all the same, and would count it."""
    async with aclosing(outputs):
        async for output in outputs:
            for choice in output.outputs:
                choice.text, choice.token_ids, choice.cumulative_logprob = "", [], None
                choice.logprobs = choice.logprobs and []
            yield output
