"""`/v1/chat/completions`: vLLM's serving class, with thoughts."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request

from server.api.generation import Generation
from server.api.service import Service
from server.api.serving_base import Answer, ThinkingServing
from server.api.streaming import role_first, with_chat_counts, with_thoughts
from server.requests.schemas import ThinkingChatRequest
from server.vllm_api import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ConversationMessage,
    EngineInput,
    ErrorResponse,
    OpenAIServingChat,
    RequestOutput,
)


class ThinkingChats(ThinkingServing, OpenAIServingChat):
    """Serves chats with thoughts. A chat is one prompt."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, service.parts.for_chats)

    async def reply(
        self, generation: Generation[ThinkingChatRequest], raw_request: Request
    ) -> Answer:
        """Serve an accepted request.

        Raises `RequestError`, and `ChatTemplateResolutionError` where neither the checkpoint nor
        the server's options have a template.
        """
        serving = self.serving(generation)
        return await serving.answer(serving.create_chat_completion(generation.request, raw_request))

    async def render_chat_request(
        self, request: ChatCompletionRequest
    ) -> tuple[list[ConversationMessage], list[EngineInput]] | ErrorResponse:
        """Tokenize the messages, and admit the request."""
        async with self.tokenizer_queue.turn([request.messages, request.tools]):
            rendered = await super().render_chat_request(request)
        if not isinstance(rendered, ErrorResponse):
            _, prompts = rendered
            self.generation.admit(prompts)
        return rendered

    async def chat_completion_full_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> ErrorResponse | ChatCompletionResponse:
        """vLLM's response; counts its tokens."""
        assert isinstance(result_generator, AsyncGenerator)
        counted = with_chat_counts(result_generator, self.generation.thoughts)
        async with aclosing(counted) as outputs:
            return await super().chat_completion_full_generator(request, outputs, *args, **kwargs)

    async def chat_completion_stream_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str]:
        """vLLM's stream, with thoughts."""
        assert isinstance(result_generator, AsyncGenerator)
        thoughts = self.generation.thoughts
        outputs = with_chat_counts(role_first(result_generator), thoughts)
        lines = super().chat_completion_stream_generator(request, outputs, *args, **kwargs)
        async with aclosing(with_thoughts(lines, outputs, thoughts)) as stream:
            async for line in stream:
                yield line
