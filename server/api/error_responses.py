"""Refused requests: how clients are told, and how they are counted."""

import json

from fastapi.responses import JSONResponse
from prometheus_client import Counter

from server.engine import create_error_response
from server.errors import RequestError

REASONS = (
    "queued_requests",
    "queued_passes",
    "request_passes",
    "request_timeout",
    "receive_timeout",
    "body_size",
    "api_key",
    "stopping",
)
_refused = Counter(
    "quietstar:requests_refused",
    "Requests refused or cut off by a limit of this server.",
    ["reason"],
)
for _reason in REASONS:
    _refused.labels(_reason)  # there, at 0, before the first one

LAST_EVENT = "data: [DONE]\n\n"


def refusal(error: RequestError) -> JSONResponse:
    """The response to a refused request, in OpenAI's error shape."""
    return JSONResponse(_content(error), status_code=error.status, headers=error.headers)


def refusal_event(error: RequestError) -> str:
    """The same within a stream of server-sent events, whose status is out already."""
    return f"data: {json.dumps(_content(error))}\n\n"


def _content(error: RequestError) -> dict[str, object]:
    if error.reason is not None:
        _refused.labels(error.reason).inc()
    content: dict[str, object] = create_error_response(
        str(error), err_type=error.kind, status_code=error.status, param=error.parameter
    ).model_dump()
    return content
