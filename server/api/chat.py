"""`/v1/chat/completions`: vLLM's serving class, with thoughts."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from copy import copy
from typing import Any

from fastapi import Request

from server.engine import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ConversationMessage,
    EngineInput,
    ErrorResponse,
    OpenAIServingChat,
    RequestOutput,
)
from server.protocol import ThinkingChatRequest
from server.thinking import Answer, Service, ThinkingServing, described
from server.thoughts import RequestThoughts


class ThinkingChats(ThinkingServing, OpenAIServingChat):
    """Serves chats with thoughts. A chat is one prompt."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, service.parts.of_chats)

    async def reply(
        self, request: ThinkingChatRequest, raw_request: Request, at_end: ExitStack
    ) -> Answer:
        """See `ThinkingServing.answer`. Raises `ChatTemplateResolutionError` where neither the
        checkpoint nor the server's options have a template."""
        return await self.answer(
            request, raw_request, at_end, lambda: self.create_chat_completion(request, raw_request)
        )

    async def render_chat_request(
        self, request: ChatCompletionRequest
    ) -> tuple[list[ConversationMessage], list[EngineInput]] | ErrorResponse:
        """Tokenize and check the messages, and see whether there is room for them."""
        assert isinstance(request, ThinkingChatRequest)
        rendered = await super().render_chat_request(request)
        if not isinstance(rendered, ErrorResponse):
            _, prompts = rendered
            self._admit(request, prompts)
        return rendered

    async def chat_completion_full_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> ErrorResponse | ChatCompletionResponse:
        """Count the tokens of a whole response while the engine's outputs are at hand."""
        assert isinstance(request, ThinkingChatRequest)
        assert isinstance(result_generator, AsyncGenerator)
        async with aclosing(seen(result_generator, request.thoughts)) as outputs:
            return await super().chat_completion_full_generator(request, outputs, *args, **kwargs)

    async def chat_completion_stream_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str]:
        """vLLM's stream, each chunk completed with what is known about its thoughts."""
        assert isinstance(request, ThinkingChatRequest)
        assert isinstance(result_generator, AsyncGenerator)
        outputs = seen(_role_first(result_generator), request.thoughts)
        lines = super().chat_completion_stream_generator(request, outputs, *args, **kwargs)
        async with aclosing(described(lines, outputs, request.thoughts)) as stream:
            async for line in stream:
                yield line


async def seen(
    outputs: AsyncGenerator[RequestOutput], thoughts: RequestThoughts
) -> AsyncGenerator[RequestOutput]:
    """The engine's outputs, their thoughts fetched and their tokens counted."""
    # Closed explicitly, so that an abandoned request is aborted before its thoughts are forgotten.
    async with aclosing(outputs):
        async for output in outputs:
            await thoughts.see(0, output)
            yield output


async def _role_first(outputs: AsyncGenerator[RequestOutput]) -> AsyncGenerator[RequestOutput]:
    """The engine's outputs, with one before them that has no tokens yet.

    With the first output vLLM sends chunks that say the role (and echo a message): they are not to
    be taken for those of its tokens.
    """
    is_first = True
    async with aclosing(outputs):
        async for output in outputs:
            if is_first:
                empty = copy(output)
                empty.outputs, empty.finished = [], False
                yield empty
                is_first = False
            yield output
