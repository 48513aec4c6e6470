"""Requests that fail in the engine while it goes on with the others."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.errors import BadRequest, NotFinite, RequestError
from server.metrics.requests import REQUESTS_FAILED
from server.vllm_api import NONE_LEFT, NOT_FINITE, GenerationError, RequestOutput


class FailedGeneration(GenerationError):
    """A request that the engine has given up; `error` is the response.

    Of a class that vLLM's streams end with an event for, rather than with a logged traceback.
    """

    def __init__(self, error: RequestError) -> None:
        super().__init__(str(error))
        self.error = error


def not_finite() -> NotFinite:
    """For a request with numbers that are not finite; counts it."""
    REQUESTS_FAILED.labels("not_finite").inc()
    return NotFinite(
        "the model computed numbers that are not finite (NaN or infinity) for this request: its "
        "weights or its --dtype do not bear this text",
        # OpenAI's client would send the same request again, twice.
        headers={"x-should-retry": "false"},
    )


def _nothing_to_sample() -> BadRequest:
    REQUESTS_FAILED.labels("nothing_to_sample").inc()
    return BadRequest(
        "no token is left to sample: the grammar allows none that allowed_token_ids, bad_words, "
        "logit_bias and, with min_tokens, the stop tokens do not exclude"
    )


async def without_failures(
    outputs: AsyncGenerator[RequestOutput],
) -> AsyncGenerator[RequestOutput]:
    """The engine's outputs; raises `FailedGeneration` where a choice has ended in an error that is
    known."""
    # Closed explicitly, so that a cancellation reaches the engine as an abort.
    async with aclosing(outputs):
        async for output in outputs:
            for choice in output.outputs:
                if choice.finish_reason == "error":
                    _raise_known(choice.stop_reason)
            yield output


def _raise_known(reason: int | str | None) -> None:
    if reason == NOT_FINITE:
        raise FailedGeneration(not_finite())
    if reason == NONE_LEFT:
        raise FailedGeneration(_nothing_to_sample())
