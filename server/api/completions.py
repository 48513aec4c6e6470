"""`/v1/completions`: vLLM's serving class, with thoughts."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request

from server.api.generation import Generation
from server.api.service import Service
from server.api.serving_base import Answer, ThinkingServing
from server.api.streaming import with_counts, with_thoughts
from server.requests.schemas import ThinkingCompletionRequest
from server.vllm_api import (
    CompletionRequest,
    CompletionResponse,
    EngineInput,
    ErrorResponse,
    OpenAIServingCompletion,
    RequestOutput,
)


class ThinkingCompletions(ThinkingServing, OpenAIServingCompletion):
    """Serves completions with thoughts."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, service.parts.for_completions)

    async def complete(
        self, generation: Generation[ThinkingCompletionRequest], raw_request: Request
    ) -> Answer:
        """Serve an accepted request. Raises `RequestError`."""
        serving = self.serving(generation)
        return await serving.answer(serving.create_completion(generation.request, raw_request))

    async def render_completion_request(
        self, request: CompletionRequest
    ) -> list[EngineInput] | ErrorResponse:
        """Tokenize the prompts, and admit the request."""
        async with self.tokenizer_queue.turn(request.prompt):
            prompts = await super().render_completion_request(request)
        if not isinstance(prompts, ErrorResponse):
            self.generation.admit(prompts)
        return prompts

    def request_output_to_completion_response(
        self, final_res_batch: list[RequestOutput], *args: Any
    ) -> CompletionResponse:
        """vLLM's response; counts its tokens."""
        for prompt, output in enumerate(final_res_batch):
            self.generation.thoughts.count_tokens(prompt, output)
        return super().request_output_to_completion_response(final_res_batch, *args)

    async def completion_stream_generator(
        self,
        request: CompletionRequest,
        engine_inputs: list[EngineInput],
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str]:
        """vLLM's stream, with thoughts."""
        assert isinstance(result_generator, AsyncGenerator)
        thoughts = self.generation.thoughts
        outputs = with_counts(result_generator, thoughts)
        lines = super().completion_stream_generator(
            request, engine_inputs, outputs, *args, **kwargs
        )
        async with aclosing(with_thoughts(lines, outputs, thoughts)) as stream:
            async for line in stream:
                yield line
