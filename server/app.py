"""The HTTP application: routes and middleware around one engine."""

from argparse import Namespace
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from server import __version__
from server.admission.options import max_body_bytes, max_text_bytes
from server.admission.time_limit import TimeLimit
from server.api.cancellation import with_cancellation
from server.api.chat import ThinkingChats
from server.api.completions import ThinkingCompletions
from server.api.error_responses import add_error_handlers
from server.api.failed_generation import not_finite
from server.api.generation import Generation
from server.api.service import Service
from server.api.serving_base import Answer
from server.api.streaming import EventStream
from server.api.tokenization import Tokenization
from server.engine.engine import Engine
from server.engine.serving_parts import add_vllm_middleware
from server.first_error import first_errors_only
from server.greeting import example_prompt
from server.health import add_health
from server.metrics.route import add_metrics
from server.middleware.auth import ApiKeys, KeyMiddleware
from server.middleware.body import BodyMiddleware
from server.middleware.host import HostMiddleware, is_loopback
from server.middleware.shutdown import ShutdownMiddleware
from server.page.api_docs import add_docs
from server.page.routes import add_page
from server.requests.schemas import (
    ThinkingChatRequest,
    ThinkingChatResponse,
    ThinkingCompletionRequest,
    ThinkingCompletionResponse,
)
from server.requests.thought_headers import OPENAPI_PARAMETERS
from server.vllm_api import (
    DetokenizeRequest,
    ErrorResponse,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    installed_vllm_version,
    lifespan,
    tokenize_router,
    validate_json_request,
    with_sse_keep_alive,
)

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorResponse,
        "description": "The request is invalid; the message says what is allowed",
    },
    401: {"model": ErrorResponse, "description": "No valid API key, on a server that needs one"},
    404: {"model": ErrorResponse, "description": "No such model"},
    408: {"model": ErrorResponse, "description": "The request took too long to arrive"},
    413: {"model": ErrorResponse, "description": "The request is too large"},
    421: {"model": ErrorResponse, "description": "The host is not this server's"},
    429: {
        "model": ErrorResponse,
        "description": "Too many requests; Retry-After says when to retry",
    },
    500: {
        "model": ErrorResponse,
        "description": "The engine failed, or the model computed numbers that are not finite",
    },
    503: {"model": ErrorResponse, "description": "The server is being stopped"},
    504: {"model": ErrorResponse, "description": "The request took too long to serve"},
}


def build_app(engine: Engine, args: Namespace, keys: ApiKeys) -> FastAPI:
    """The application for a running engine, a parsed command line and the API keys."""
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
    # vLLM's lifespan and routes read these.
    app.state.args = args
    app.state.engine_client = engine.client
    app.state.log_stats = not args.disable_log_stats
    add_health(app, engine, args.engine_timeout)
    add_page(app)
    add_docs(app)
    _add_version(app)
    service = Service(engine, args)
    _add_load(app, service)
    add_metrics(app, engine, service.admission)
    _add_models(app, service)
    _add_tokenization(app, service)
    keep_alive_interval = float(args.sse_keep_alive_interval)
    _add_completions(app, ThinkingCompletions(service), keep_alive_interval)
    _add_chats(app, ThinkingChats(service), keep_alive_interval)
    add_error_handlers(app)
    # The middleware that is added last is the outermost. Nothing is received without a key; CORS
    # headers are sent with refusals, too.
    app.add_middleware(
        BodyMiddleware,
        max_bytes=max_body_bytes(args),
        max_text_bytes=max_text_bytes(engine.context_length),
        seconds=args.receive_timeout,
    )
    if keys:
        app.add_middleware(KeyMiddleware, keys=keys)
    elif is_loopback(args.host):
        app.add_middleware(HostMiddleware, allowed=args.allowed_hosts)
    add_vllm_middleware(app, args)
    app.add_middleware(ShutdownMiddleware)
    return app


def _add_version(app: FastAPI) -> None:
    @app.get("/version")
    async def version() -> dict[str, str]:
        """Our version and vLLM's."""
        return {"version": __version__, "vllm": installed_vllm_version()}


def _add_load(app: FastAPI, service: Service) -> None:
    @app.get("/load")
    async def load() -> dict[str, int]:
        """How many completions and chats are being served or wait, as vLLM's server says it."""
        return {"server_load": service.num_in_flight}


def _add_models(app: FastAPI, service: Service) -> None:
    setup = service.engine.setup
    quiet_star = {
        "max_thought_budget": setup.limits.max_budget,
        "default_thought_budget": setup.limits.default_budget,
        "default_thought_temperature": setup.limits.default_temperature,
        "default_thought_threshold": setup.limits.default_threshold,
        "default_thinking_token_budget": None,
        "effort_thresholds": asdict(setup.config.effort_thresholds),
        "gate": service.engine.gate_kind,
        "gate_budgets": setup.config.gate and setup.config.gate.budgets,
        "embedding_mode": setup.config.embedding_mode,
        "allow_return_thoughts": service.allow_return,
        "example_prompt": example_prompt(service.engine),
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model, and how much it may think; its aliases have other defaults. `max_model_len`
        includes the last thought."""
        listed = (await service.parts.models.show_available_models()).model_dump()
        for model in listed["data"]:
            fields = service.engine.aliases.get(model["id"])
            if fields is not None:
                model["parent"] = service.engine.model_names[0]
            defaults = {f"default_{name}": value for name, value in (fields or {}).items()}
            model["quiet_star"] = quiet_star | defaults
        return listed


def _add_tokenization(app: FastAPI, service: Service) -> None:
    # The routes are vLLM's, with its requests; they are built when the router is included.
    for request in (TokenizeCompletionRequest, TokenizeChatRequest, DetokenizeRequest):
        first_errors_only(request)
    # vLLM's routes read it there.
    app.state.serving_tokenization = Tokenization(
        service.tokenizer_queue, **service.parts.for_tokenization
    )
    app.include_router(tokenize_router)


def _responses(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "content": {"text/event-stream": {}}}, **_ERRORS}


def _add_completions(
    app: FastAPI, completions: ThinkingCompletions, keep_alive_interval: float
) -> None:
    async def in_flight(
        request: ThinkingCompletionRequest, raw_request: Request
    ) -> AsyncIterator[Generation[ThinkingCompletionRequest]]:
        generation = completions.accept(request, raw_request)
        try:
            yield generation
        finally:
            generation.close()

    @app.post(
        "/v1/completions",
        dependencies=[Depends(validate_json_request)],
        # Documented, not validated: the handler returns None to a client that has left.
        response_model=None,
        responses=_responses(ThinkingCompletionResponse),
        openapi_extra={"parameters": OPENAPI_PARAMETERS},
    )
    @with_cancellation
    async def create_completion(
        generation: Annotated[Generation[ThinkingCompletionRequest], Depends(in_flight)],
        raw_request: Request,
    ) -> Response:
        """Complete a prompt (OpenAI's completions API, with vLLM's additions and ours about
        thoughts)."""
        answer = await completions.complete(generation, raw_request)
        return _response(answer, generation.time_limit, keep_alive_interval)


def _add_chats(app: FastAPI, chats: ThinkingChats, keep_alive_interval: float) -> None:
    async def in_flight(
        request: ThinkingChatRequest, raw_request: Request
    ) -> AsyncIterator[Generation[ThinkingChatRequest]]:
        generation = chats.accept(request, raw_request)
        try:
            yield generation
        finally:
            generation.close()

    @app.post(
        "/v1/chat/completions",
        dependencies=[Depends(validate_json_request)],
        response_model=None,
        responses=_responses(ThinkingChatResponse),
        openapi_extra={"parameters": OPENAPI_PARAMETERS},
    )
    @with_cancellation
    async def create_chat_completion(
        generation: Annotated[Generation[ThinkingChatRequest], Depends(in_flight)],
        raw_request: Request,
    ) -> Response:
        """Reply to messages (OpenAI's chat API, with vLLM's additions and ours about thoughts).
        For models with a chat template."""
        answer = await chats.reply(generation, raw_request)
        return _response(answer, generation.time_limit, keep_alive_interval)


def _response(answer: Answer, time_limit: TimeLimit, keep_alive_interval: float) -> Response:
    if isinstance(answer, ErrorResponse):
        return JSONResponse(answer.model_dump(), status_code=answer.error.code)
    if isinstance(answer, dict):
        try:
            return JSONResponse(answer)
        except ValueError:  # JSON has no NaN and no infinities
            raise not_finite() from None
    return EventStream(with_sse_keep_alive(answer, keep_alive_interval), time_limit)
