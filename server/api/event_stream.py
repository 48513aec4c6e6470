"""The response that sends a stream of server-sent events, within the request's time."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from server.admission.time_limit import TimeLimit
from server.errors import OutOfTime
from server.metrics.requests import REQUESTS_REFUSED
from server.middleware.connection import cut


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
