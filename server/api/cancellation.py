"""Cancels the handler of a route when its client leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import Receive

_T = TypeVar("_T")


def with_cancellation(handler: Callable[..., Awaitable[_T]]) -> Callable[..., Awaitable[_T | None]]:
    """A route's handler that is cancelled, and returns None, when its client leaves.

    Its argument `raw_request` is the request, whose body has been received. vLLM's own decorator
    does not cancel the handler when it is itself cancelled.
    """

    @wraps(handler)
    async def cancellable(*args: Any, raw_request: Request, **kwargs: Any) -> _T | None:
        work = asyncio.ensure_future(handler(*args, raw_request=raw_request, **kwargs))
        disconnect = asyncio.ensure_future(_disconnect(raw_request.receive))
        try:
            await asyncio.wait((work, disconnect), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            work.cancel()
            disconnect.cancel()

    return cancellable


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
