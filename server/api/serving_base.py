"""What completions and chats share: vLLM's serving classes, with thoughts."""

from collections.abc import AsyncGenerator, Awaitable
from copy import copy
from typing import Any, Self, TypeAlias, TypeVar

from fastapi import Request

from server.api.engine_client import RequestClient
from server.api.error_responses import refusal_json
from server.api.failed_generation import FailedGeneration
from server.api.generation import Generation
from server.api.service import Service
from server.api.streaming import with_errors
from server.requests.schemas import ThinkingChatRequest, ThinkingCompletionRequest
from server.requests.validation import check_request_id
from server.vllm_api import (
    ChatCompletionResponse,
    CompletionResponse,
    ErrorResponse,
    GenerateBaseServing,
    GenerationError,
)

# An error, a whole response, or the lines of a stream of server-sent events.
Answer: TypeAlias = ErrorResponse | dict[str, Any] | AsyncGenerator[str]
# The same as vLLM's serving classes return it.
VllmAnswer: TypeAlias = (
    ErrorResponse | CompletionResponse | ChatCompletionResponse | AsyncGenerator[str]
)
_RequestT = TypeVar("_RequestT", ThinkingCompletionRequest, ThinkingChatRequest)


class ThinkingServing(GenerateBaseServing):
    """Mixed into a serving class of vLLM's, which does the rest.

    The subclasses override the methods with which vLLM tokenizes a prompt (to admit it), and makes
    responses of the engine's outputs (to count tokens and to add thoughts). These methods find the
    request in flight in `generation`: each request is served by a copy, see `serving`.
    """

    generation: Generation[Any]

    def __init__(self, service: Service, parts: dict[str, Any]) -> None:
        """`parts`: the arguments of vLLM's class."""
        super().__init__(**parts)
        self._service = service
        self.tokenizer_queue = service.tokenizer_queue

    def accept(self, request: _RequestT, raw_request: Request) -> Generation[_RequestT]:
        """The state of a request that has arrived.

        Raises `RequestError` and `ThoughtParamsError` for a request that is refused.
        """
        query = raw_request.query_params.multi_items()
        check_request_id(raw_request.headers.get("X-Request-Id"), "X-Request-Id")
        headers = raw_request.headers.items()
        return Generation(request, query, headers, self._service, self.renderer.get_tokenizer())

    def serving(self, generation: Generation[Any]) -> Self:
        """A shallow copy that serves one request: vLLM's methods hand no state of ours on."""
        copied = copy(self)
        copied.generation = generation
        copied.engine_client = RequestClient(self._service, generation)  # type: ignore[assignment]
        return copied

    async def answer(self, work: Awaitable[VllmAnswer]) -> Answer:
        """vLLM's answer to the request, with thoughts. Raises `RequestError`."""
        time_limit, thoughts = self.generation.time_limit, self.generation.thoughts
        result = await time_limit.wait_for(work)
        if isinstance(result, ErrorResponse):
            return result
        if isinstance(result, AsyncGenerator):
            # Its status must not be sent before this is known.
            await time_limit.wait_for(self.generation.checked_grammar())
            return with_errors(time_limit.limit(result))
        await thoughts.fetch_all()
        response = result.model_dump()
        thoughts.describe(response)
        return response

    def _convert_generation_error_to_streaming_response(self, e: GenerationError) -> str:
        if isinstance(e, FailedGeneration):
            return refusal_json(e.error)
        text: str = super()._convert_generation_error_to_streaming_response(e)
        return text
