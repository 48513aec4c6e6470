"""Requests on their way in and, when the server ends, on their way out: middleware that bounds
their size and their time."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BodyTooLarge, ReceiveTimeout, Stopping
from server.refusals import LAST_EVENT, refusal, refusal_event

T = TypeVar("T")


def with_cancellation(handler: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T | None]]:
    """A route's handler that is cancelled, and returns None, where its client leaves.

    Its argument `raw_request` is the request, whose body has been received. vLLM has the same, but
    does not pass on its own cancellation.
    """

    @wraps(handler)
    async def cancellable(*args: Any, raw_request: Request, **kwargs: Any) -> T | None:
        work = asyncio.ensure_future(handler(*args, raw_request=raw_request, **kwargs))
        leaving = asyncio.ensure_future(_leaving(raw_request.receive))
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            work.cancel()
            leaving.cancel()

    return cancellable


async def _leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class BodyMiddleware:
    """Receives the whole body of a request before anything else happens to it."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        """0 = no limit."""
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds or None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            late = ReceiveTimeout(
                f"the request's body did not arrive within {self._seconds:g} s",
                headers={"Connection": "close"},
            )
            await refusal(late)(scope, receive, send)
        except BodyTooLarge as error:
            await refusal(error)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None where the client left before it was complete."""
        self._check(int(Headers(scope=scope).get("content-length", 0)))
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            self._check(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _check(self, num_bytes: int) -> None:
        if 0 < self._max_bytes < num_bytes:
            raise BodyTooLarge(
                f"the request's body is larger than the {self._max_bytes} bytes that this server "
                "takes"
            )


def _replay(body: bytes, receive: Receive) -> Receive:
    """What an application receives: the body, then what comes after it (the client's leaving)."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class StoppingMiddleware:
    """Tells clients that the end of the server cuts their requests off.

    uvicorn cancels what is still running when the time to finish is over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Watched(send)
        try:
            await self._app(scope, receive, response.send)
        except asyncio.CancelledError:
            error = Stopping("the server is being stopped, and this request took too long for it")
            if not response.started:
                await refusal(error)(scope, receive, send)
            elif response.is_open_stream:
                text = refusal_event(error) + LAST_EVENT
                await send({"type": "http.response.body", "body": text.encode()})


class _Watched:
    """How far a response has got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.is_open_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            self.is_open_stream = content_type.startswith("text/event-stream")
        elif not message.get("more_body", False):
            self.is_open_stream = False
        await self._send(message)
