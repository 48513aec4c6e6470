"""`/v1/completions`: vLLM's serving class, with thoughts."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi import Request

from server.engine import (
    CompletionRequest,
    CompletionResponse,
    EngineInput,
    ErrorResponse,
    OpenAIServingCompletion,
    RequestOutput,
)
from server.protocol import ThinkingCompletionRequest
from server.thinking import Answer, Service, ThinkingServing, described
from server.thoughts import RequestThoughts


class ThinkingCompletions(ThinkingServing, OpenAIServingCompletion):
    """Serves completions with thoughts."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, service.parts.of_completions)

    async def complete(
        self, request: ThinkingCompletionRequest, raw_request: Request, at_end: ExitStack
    ) -> Answer:
        """See `ThinkingServing.answer`."""
        return await self.answer(
            request, raw_request, at_end, lambda: self.create_completion(request, raw_request)
        )

    async def render_completion_request(
        self, request: CompletionRequest
    ) -> list[EngineInput] | ErrorResponse:
        """Tokenize and check the prompts, and see whether there is room for them."""
        assert isinstance(request, ThinkingCompletionRequest)
        prompts = await super().render_completion_request(request)
        if not isinstance(prompts, ErrorResponse):
            self._admit(request, prompts)
        return prompts

    def request_output_to_completion_response(
        self, final_res_batch: list[RequestOutput], request: CompletionRequest, *args: Any
    ) -> CompletionResponse:
        """Count the tokens of a whole response while the engine's outputs are at hand."""
        assert isinstance(request, ThinkingCompletionRequest)
        for prompt, output in enumerate(final_res_batch):
            request.thoughts.count_tokens(prompt, output)
        return super().request_output_to_completion_response(final_res_batch, request, *args)

    async def completion_stream_generator(
        self,
        request: CompletionRequest,
        engine_inputs: list[EngineInput],
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str]:
        """vLLM's stream, each chunk completed with what is known about its thoughts."""
        assert isinstance(request, ThinkingCompletionRequest)
        assert isinstance(result_generator, AsyncGenerator)
        outputs = seen(result_generator, request.thoughts)
        lines = super().completion_stream_generator(
            request, engine_inputs, outputs, *args, **kwargs
        )
        async with aclosing(described(lines, outputs, request.thoughts)) as stream:
            async for line in stream:
                yield line


async def seen(
    outputs: AsyncGenerator[tuple[int, RequestOutput]], thoughts: RequestThoughts
) -> AsyncGenerator[tuple[int, RequestOutput]]:
    """The engine's outputs, their thoughts fetched and their tokens counted."""
    # Closed explicitly, so that an abandoned request is aborted before its thoughts are forgotten.
    async with aclosing(outputs):
        async for prompt, output in outputs:
            await thoughts.see(prompt, output)
            yield prompt, output
