"""The HTTP application: routes, error shapes and middleware around one engine."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import HTTPException as FastAPIHTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from quietstar_infer.errors import ThoughtParamsError
from server import __version__
from server.chats import ThinkingChats
from server.completions import ThinkingCompletions
from server.docs import add_docs
from server.engine import (
    ChatTemplateResolutionError,
    Engine,
    ErrorResponse,
    create_error_response,
    health,
    health_router,
    init_exception_handler,
    installed_vllm_version,
    lifespan,
    tokenize_router,
    use_middleware,
    validate_json_request,
    with_sse_keep_alive,
)
from server.errors import BadRequest, RequestError
from server.greeting import example_prompt
from server.keys import ApiKeys, KeyMiddleware
from server.limits import max_body_bytes
from server.metrics import add_metrics
from server.page_files import add_page
from server.protocol import (
    ThinkingChatRequest,
    ThinkingChatResponse,
    ThinkingCompletionRequest,
    ThinkingCompletionResponse,
)
from server.receiving import BodyMiddleware, StoppingMiddleware, with_cancellation
from server.refusals import refusal
from server.thinking import Answer, Service
from server.validation import invalid

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The request; the message says what is allowed"},
    401: {"model": ErrorResponse, "description": "No API key, on a server that needs one"},
    404: {"model": ErrorResponse, "description": "No such model"},
    408: {"model": ErrorResponse, "description": "The request took too long to arrive"},
    413: {"model": ErrorResponse, "description": "The request is too large"},
    429: {"model": ErrorResponse, "description": "Too much to do; Retry-After says how long"},
    503: {"model": ErrorResponse, "description": "The server is being stopped"},
    504: {"model": ErrorResponse, "description": "The request took too long to answer"},
    500: {"model": ErrorResponse, "description": "The engine"},
}


def build_app(engine: Engine, args: Namespace, keys: ApiKeys) -> FastAPI:
    """The application for a running engine, the options of the command line and the API keys."""
    app = FastAPI(
        title="Quiet-STaR",
        description="OpenAI-compatible completions and chats by a model that thinks before every "
        "token.",
        version=__version__,
        lifespan=lifespan,
        root_path=args.root_path or "",
        openapi_url=None if args.disable_fastapi_docs else "/openapi.json",
        # See add_docs.
        docs_url=None,
        redoc_url=None,
    )
    # vLLM's lifespan and routes look for these.
    app.state.args = args
    app.state.engine_client = engine.client
    app.state.log_stats = not args.disable_log_stats
    app.include_router(health_router)
    app.add_api_route("/ping", health, methods=["GET", "POST"], response_class=Response)
    add_metrics(app, engine)
    add_page(app)
    add_docs(app)
    _add_version(app)
    service = Service(engine, args)
    _add_models(app, service)
    _add_tokenization(app, service)
    keep_alive_interval = float(args.sse_keep_alive_interval)
    _add_completions(app, ThinkingCompletions(service), keep_alive_interval)
    _add_chats(app, ThinkingChats(service), keep_alive_interval)
    init_exception_handler(app)
    # vLLM's handler is for FastAPI's exceptions only; no path and no method are Starlette's.
    for kind in (HTTPException, FastAPIHTTPException):
        app.exception_handler(kind)(_http_error)
    for invalid_kind in (RequestValidationError, ValidationError):
        app.exception_handler(invalid_kind)(_invalid)
    app.exception_handler(RequestError)(_refused)
    app.exception_handler(ThoughtParamsError)(_refused)
    app.exception_handler(ChatTemplateResolutionError)(_no_chat_template)
    # The last one comes first. Without a key nothing is received; browsers are told about CORS in
    # any case.
    app.add_middleware(BodyMiddleware, max_bytes=max_body_bytes(args), seconds=args.receive_timeout)
    if keys:
        app.add_middleware(KeyMiddleware, keys=keys)
    use_middleware(app, args)
    app.add_middleware(StoppingMiddleware)
    return app


def _add_version(app: FastAPI) -> None:
    @app.get("/version")
    async def version() -> dict[str, str]:
        """Our version and vLLM's."""
        return {"version": __version__, "vllm": installed_vllm_version()}


def _add_models(app: FastAPI, service: Service) -> None:
    setup = service.engine.setup
    quiet_star = {
        "max_thought_budget": setup.limits.max_budget,
        "default_thought_budget": setup.limits.default_budget,
        "default_thought_temperature": setup.limits.default_temperature,
        "embedding_mode": setup.config.embedding_mode,
        "allow_return_thoughts": service.allow_return,
        "example_prompt": example_prompt(service.engine),
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What is served, and how much it may think. `max_model_len` includes the last thought."""
        listed = (await service.parts.models.show_available_models()).model_dump()
        for model in listed["data"]:
            model["quiet_star"] = quiet_star
        return listed


def _add_tokenization(app: FastAPI, service: Service) -> None:
    # vLLM's routes look for it there.
    app.state.serving_tokenization = service.parts.tokenization()
    app.include_router(tokenize_router)


def _responses(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "content": {"text/event-stream": {}}}, **_ERRORS}


def _add_completions(
    app: FastAPI, completions: ThinkingCompletions, keep_alive_interval: float
) -> None:
    @app.post(
        "/v1/completions",
        dependencies=[Depends(validate_json_request)],
        # Documented, not checked: nothing is returned to a client that has left.
        response_model=None,
        responses=_responses(ThinkingCompletionResponse),
    )
    @with_cancellation
    async def create_completion(
        request: ThinkingCompletionRequest,
        raw_request: Request,
        at_end: Annotated[ExitStack, Depends(_at_end)],
    ) -> Response:
        """Complete a prompt (OpenAI's completions API, with vLLM's additions and ours about
        thoughts)."""
        answer = await completions.complete(request, raw_request, at_end)
        return _response(answer, keep_alive_interval)


def _add_chats(app: FastAPI, chats: ThinkingChats, keep_alive_interval: float) -> None:
    @app.post(
        "/v1/chat/completions",
        dependencies=[Depends(validate_json_request)],
        response_model=None,
        responses=_responses(ThinkingChatResponse),
    )
    @with_cancellation
    async def create_chat_completion(
        request: ThinkingChatRequest,
        raw_request: Request,
        at_end: Annotated[ExitStack, Depends(_at_end)],
    ) -> Response:
        """Reply to messages (OpenAI's chat API, with vLLM's additions and ours about thoughts).
        For models with a chat template."""
        return _response(await chats.reply(request, raw_request, at_end), keep_alive_interval)


def _response(answer: Answer, keep_alive_interval: float) -> Response:
    if isinstance(answer, ErrorResponse):
        return JSONResponse(answer.model_dump(), status_code=answer.error.code)
    if isinstance(answer, dict):
        return JSONResponse(answer)
    return StreamingResponse(
        with_sse_keep_alive(answer, keep_alive_interval), media_type="text/event-stream"
    )


async def _at_end() -> AsyncIterator[ExitStack]:
    """What is to be done when a request is over, however it ends."""
    with ExitStack() as at_end:
        yield at_end


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError | ThoughtParamsError)
    if isinstance(error, ThoughtParamsError):
        error = BadRequest(str(error), error.parameter)
    return refusal(error)


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
