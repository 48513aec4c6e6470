"""Long texts on their way to the tokenizer, and `/tokenize` and `/detokenize`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from server.errors import BadRequest
from server.vllm_api import (
    DetokenizeRequest,
    DetokenizeResponse,
    ErrorResponse,
    ServingTokenization,
    TokenizeChatRequest,
    TokenizeRequest,
    TokenizeResponse,
)

# More characters than this are many: about a tenth of a second of the tokenizer's time.
_MANY = 1 << 16
# What every server takes, in characters.
_LEAST_LIMIT = 1 << 18


def num_characters(value: Any) -> int:
    """The characters of all texts in a value as JSON has it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(num_characters, value.values()))
    return sum(map(num_characters, value)) if isinstance(value, list) else 0


class TokenizerQueue:
    """Lets one long text at a time to the tokenizer, which has two threads (`engine.startup`): the
    other one is left to short texts."""

    def __init__(self, context_length: int) -> None:
        # Far more than fits into the context.
        self._limit = max(_LEAST_LIMIT, 16 * context_length)
        self._long_texts = asyncio.Semaphore(1)

    @asynccontextmanager
    async def turn(self, texts: Any) -> AsyncIterator[None]:
        """The time in which such texts may be tokenized. Raises `BadRequest` where that would be
        too long."""
        length = num_characters(texts)
        if length > self._limit:
            raise BadRequest(
                f"the texts have {length} characters in all, this server takes {self._limit}, many "
                "times what fits into the context",
            )
        if length <= _MANY:
            yield
            return
        async with self._long_texts:
            yield


class Tokenization(ServingTokenization):
    """vLLM's, whose long texts wait for each other and for those of prompts."""

    def __init__(self, queue: TokenizerQueue, **parts: Any) -> None:
        """`parts`: the arguments of vLLM's class."""
        super().__init__(**parts)
        self._queue = queue

    async def create_tokenize(
        self, request: TokenizeRequest, raw_request: Request
    ) -> TokenizeResponse | ErrorResponse:
        texts = request.messages if isinstance(request, TokenizeChatRequest) else request.prompt
        async with self._queue.turn(texts):
            return await super().create_tokenize(request, raw_request)

    async def create_detokenize(
        self, request: DetokenizeRequest, raw_request: Request
    ) -> DetokenizeResponse | ErrorResponse:
        largest = self.model_config.get_vocab_size() - 1
        for token_id in request.tokens:
            # vLLM has bounded them from below.
            if token_id > largest:
                raise BadRequest(
                    f"token id {token_id} is out of range, must be from 0 to {largest}", "tokens"
                )
        return await super().create_detokenize(request, raw_request)
