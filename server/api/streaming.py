"""Streamed responses: vLLM's chunks, completed with thoughts where there is something to add."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from server.admission.time_limit import TimeLimit
from server.api.error_responses import LAST_EVENT, refusal_event
from server.api.failed_generation import not_finite
from server.api.thoughts import RequestThoughts
from server.errors import OutOfTime, RequestError
from server.metrics.requests import REQUESTS_REFUSED
from server.middleware.connection import cut
from server.vllm_api import RequestOutput


async def with_counts(
    outputs: AsyncGenerator[tuple[int, RequestOutput]], thoughts: RequestThoughts
) -> AsyncGenerator[tuple[int, RequestOutput]]:
    """The engine's outputs, each with the number of its prompt; their tokens are counted and their
    thoughts fetched before a chunk is made of them."""
    # Closed explicitly, so that an abandoned request is aborted before its thoughts are deleted.
    async with aclosing(outputs):
        async for prompt, output in outputs:
            await thoughts.see(prompt, output)
            yield prompt, output


async def with_chat_counts(
    outputs: AsyncGenerator[RequestOutput], thoughts: RequestThoughts
) -> AsyncGenerator[RequestOutput]:
    """The same for a chat, which is one prompt."""
    async with aclosing(outputs):
        async for output in outputs:
            await thoughts.see(0, output)
            yield output


async def role_first(outputs: AsyncGenerator[RequestOutput]) -> AsyncGenerator[RequestOutput]:
    """The engine's outputs, after one that has no tokens yet.

    With the first output vLLM sends chunks with the role (and the message to echo), which must not
    be completed with the thoughts of that output's tokens.
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


async def with_thoughts(
    lines: AsyncGenerator[str], outputs: AsyncGenerator[Any], thoughts: RequestThoughts
) -> AsyncGenerator[str]:
    """The lines of vLLM's stream, completed.

    `outputs`: what vLLM makes the stream from.
    """
    is_first = True
    # Closed explicitly, the lines first: an abandoned stream must reach the engine as an abort.
    async with aclosing(outputs), aclosing(lines):
        async for line in lines:
            yield completed(line, thoughts, is_first)
            is_first = False


def completed(line: str, thoughts: RequestThoughts, is_first: bool) -> str:
    """A line of a stream; a chunk to which nothing is added is passed on as vLLM made it. Raises
    `NotFinite` for numbers that JSON has not."""
    # Quotes within a text are escaped, so that this can only be the name of a field.
    has_usage = '"usage":' in line
    if not (is_first or has_usage or thoughts.wanted):
        return line
    payload = line.removeprefix("data: ").strip()
    if payload == "[DONE]":
        return line
    chunk = json.loads(payload)
    if "choices" not in chunk:
        return line  # an error
    thoughts.describe_chunk(chunk, is_first)
    try:
        text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise not_finite() from None
    return f"data: {text}\n\n"


async def with_errors(lines: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """A stream whose `RequestError`, if it raises one, is its last event: its status has been
    sent."""
    try:
        async with aclosing(lines):
            async for line in lines:
                yield line
    except RequestError as error:
        yield refusal_event(error)
        yield LAST_EVENT


class EventStream(StreamingResponse):
    """Sends the lines of a stream. A client that does not read them is cut off when the time of its
    request is up: it cannot be told why."""

    def __init__(self, lines: AsyncGenerator[str], time_limit: TimeLimit) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._lines = lines
        self._time_limit = time_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            await self._time_limit.wait_for_sending(send(message))

        async with aclosing(self._lines):
            try:
                await super().__call__(scope, receive, send_in_time)
            except OutOfTime as error:
                REQUESTS_REFUSED.labels(error.reason).inc()
                await cut(scope, receive)
