"""Responses to refused requests, in OpenAI's error shape."""

import json
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException as FastAPIHTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from quietstar_infer.errors import ThoughtParamsError
from server.api.failed_generation import FailedGeneration
from server.errors import BadRequest, RequestError
from server.metrics.requests import REQUESTS_REFUSED
from server.requests.validation_errors import invalid
from server.vllm_api import (
    ChatTemplateResolutionError,
    create_error_response,
    init_exception_handler,
)

LAST_EVENT = "data: [DONE]\n\n"


def refusal(error: RequestError) -> JSONResponse:
    """The response to a refused request."""
    return JSONResponse(_content(error), status_code=error.status, headers=error.headers)


def refusal_event(error: RequestError) -> str:
    """The same as a server-sent event, in a stream whose status has been sent."""
    return f"data: {refusal_json(error)}\n\n"


def refusal_json(error: RequestError) -> str:
    """The text of the same."""
    return json.dumps(_content(error))


def add_error_handlers(app: FastAPI) -> None:
    """Answer all errors of an application's routes in OpenAI's shape."""
    init_exception_handler(app)
    # vLLM handles FastAPI's exceptions only; unknown paths and methods raise Starlette's.
    for kind in (HTTPException, FastAPIHTTPException):
        app.exception_handler(kind)(_http_error)
    for invalid_kind in (RequestValidationError, ValidationError):
        app.exception_handler(invalid_kind)(_invalid)
    app.exception_handler(RequestError)(_refused)
    app.exception_handler(ThoughtParamsError)(_refused)
    app.exception_handler(FailedGeneration)(_failed)
    app.exception_handler(ChatTemplateResolutionError)(_no_chat_template)


def _content(error: RequestError) -> dict[str, object]:
    if error.reason is not None:
        REQUESTS_REFUSED.labels(error.reason).inc()
    content: dict[str, object] = create_error_response(
        str(error), err_type=error.kind, status_code=error.status, param=error.parameter
    ).model_dump()
    return content


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError | ThoughtParamsError)
    if isinstance(error, ThoughtParamsError):
        error = BadRequest(str(error), error.parameter)
    return refusal(error)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FailedGeneration)
    return refusal(error.error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | ValidationError)
    return refusal(invalid(error.errors()))


async def _no_chat_template(_: Request, __: Exception) -> JSONResponse:
    return refusal(
        BadRequest(
            "this model has no chat template: ask /v1/completions, or start the server with "
            "--chat-template FILE",
            "messages",
        )
    )


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    message = f"{request.method} {request.url.path}: {error.detail}"
    if isinstance(error.__cause__, ValueError | RecursionError):
        message = f"the body cannot be read as JSON: {error.__cause__}"
    response = create_error_response(message, status.phrase, status)
    return JSONResponse(response.model_dump(), status, error.headers)
