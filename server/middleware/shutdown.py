"""Tells clients that the server ends, when it cuts their requests off."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.error_responses import LAST_EVENT, refusal, refusal_event
from server.errors import Stopping


class ShutdownMiddleware:
    """Answers requests that are cancelled with 503, or with an error as the last event of a stream.

    uvicorn cancels the requests that still run at the end of `--shutdown-timeout`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _SentResponse(send)
        try:
            await self._app(scope, receive, response.send)
        except asyncio.CancelledError:
            error = Stopping("the server is being stopped, and this request took too long for it")
            if not response.started:
                await refusal(error)(scope, receive, send)
            elif response.is_open_stream:
                text = refusal_event(error) + LAST_EVENT
                await send({"type": "http.response.body", "body": text.encode()})


class _SentResponse:
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
