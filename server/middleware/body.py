"""Receives the body of a request, within a size and a time."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.error_responses import refusal
from server.errors import BodyTooLarge, ReceiveTimeout
from server.middleware.json_size import MAX_VALUES, has_too_many_values, has_too_much_text

# All others are answered without what is sent to them.
_PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"})


def _wants_body(scope: Scope) -> bool:
    return (
        scope["method"] == "POST"
        and scope["path"].removeprefix(scope.get("root_path", "")) in _PATHS
    )


class BodyMiddleware:
    """Receives the whole body of a request that should have one, before the application sees the
    request."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_text_bytes: int, seconds: float) -> None:
        """0 = no limit."""
        self._app = app
        self._max_bytes = max_bytes
        self._max_text_bytes = max_text_bytes
        self._seconds = seconds or None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _wants_body(scope):
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
                if has_too_many_values(body):
                    raise BodyTooLarge(
                        f"the request's body has more than {MAX_VALUES} values (numbers, texts, "
                        "lists and maps), which this server takes at most: send several requests"
                    )
                if has_too_much_text(body, self._max_text_bytes):
                    raise BodyTooLarge(
                        f"the texts in the request's body have more than {self._max_text_bytes} "
                        "bytes, which this server takes at most: send several requests"
                    )
                return bytes(body)

    def _check(self, num_bytes: int) -> None:
        if 0 < self._max_bytes < num_bytes:
            raise BodyTooLarge(
                f"the request's body is larger than the {self._max_bytes} bytes that this server "
                "takes",
                # The rest is not received: a client that sent another request behind it would find
                # the connection closed.
                headers={"Connection": "close"},
            )


def _replay(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body, then what follows it (the disconnect)."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
