"""uvicorn's connection with limits: for clients that send or read slowly, endlessly or never."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024
_SHORT_BODY = 64 * 1024
# The extension of a scope with what closes the connection at once.
_ABORT = "quietstar.abort"


async def cut(scope: Scope, receive: Receive) -> None:
    """Close a request's connection at once, with what was written and not sent."""
    extension = scope.get("extensions", {}).get(_ABORT)
    if extension is not None:
        extension["abort"]()
        while (await receive())["type"] != "http.disconnect":
            pass


def _is_short(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the body of a request is received in any case, to keep its connection."""
    length = headers.get(b"content-length", b"")
    return length.isdigit() and int(length) <= _SHORT_BODY


class Connection(HttpToolsProtocol):
    """Closes itself where a request's headers are too long, where a request takes too long to
    arrive, or where its client does not read for as long.

    It refuses with one line of text, without JSON: the request has not reached the application.
    `middleware.body` refuses bodies; this only closes a connection that goes on sending after that.
    """

    def __init__(self, *args: Any, receive_seconds: float, **kwargs: Any) -> None:
        """0 = no limit."""
        super().__init__(*args, **kwargs)
        self._receive_seconds = receive_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._header_bytes: int | None = 0  # None while a body is received

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._receive_seconds:
            self._stop_send_timer()
            self._send_timer = self.loop.call_later(self._receive_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._header_bytes is not None:
            room = MAX_HEADER_BYTES - self._header_bytes
            head, data = data[:room], data[room:]
            super().data_received(head)
            if self._header_bytes is not None:
                self._header_bytes += len(head)
                if data and not self.transport.is_closing():
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers are too long")
        if data and not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_ABORT: {"abort": self.transport.abort}}
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._header_bytes = None
        # Later than the application's own limit for the body, whose refusal says more.
        self._start_timer(2 * self._receive_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._header_bytes = 0
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_of_last_request = not self.pipeline
        super().on_response_complete()
        if is_of_last_request and self._header_bytes is None and not _is_short(dict(self.headers)):
            # The request was answered without it: the rest of its body is not received.
            self.transport.close()

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._start_timer(self._receive_seconds)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        if seconds:
            self._timer = self.loop.call_later(seconds, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _time_is_up(self) -> None:
        if self._header_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "headers did not arrive in time")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        body = f"The request's {message}.\n".encode()
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\n"
            + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()
