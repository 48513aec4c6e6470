"""The HTTP application: routes, error shapes and middleware around one engine."""

from argparse import Namespace
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from quietstar_infer.errors import ThoughtParamsError
from server import __version__
from server.completions import ThinkingCompletions
from server.engine import (
    Engine,
    ErrorResponse,
    attach_metrics,
    create_error_response,
    health_router,
    init_exception_handler,
    installed_vllm_version,
    lifespan,
    use_middleware,
    validate_json_request,
    with_cancellation,
    with_sse_keep_alive,
)
from server.errors import BadRequest
from server.protocol import ThinkingCompletionRequest, ThinkingCompletionResponse

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": ThinkingCompletionResponse, "content": {"text/event-stream": {}}},
    400: {"model": ErrorResponse, "description": "The request; the message says what is allowed"},
    404: {"model": ErrorResponse, "description": "No such model"},
    500: {"model": ErrorResponse, "description": "The engine"},
}


def build_app(engine: Engine, args: Namespace) -> FastAPI:
    """The application for a running engine and the options of the command line."""
    app = FastAPI(
        title="Quiet-STaR",
        description="OpenAI-compatible completions by a model that thinks before every token.",
        version=__version__,
        lifespan=lifespan,
        root_path=args.root_path or "",
        openapi_url=None if args.disable_fastapi_docs else "/openapi.json",
    )
    # vLLM's lifespan and routes look for these.
    app.state.args = args
    app.state.engine_client = engine.client
    app.state.log_stats = not args.disable_log_stats
    app.include_router(health_router)
    attach_metrics(app)
    _add_version(app)
    completions = ThinkingCompletions(engine, args)
    _add_models(app, completions, engine)
    _add_completions(app, completions, float(args.sse_keep_alive_interval))
    init_exception_handler(app)
    app.exception_handler(BadRequest)(_bad_request)
    app.exception_handler(ThoughtParamsError)(_bad_request)
    use_middleware(app, args)
    return app


def _add_version(app: FastAPI) -> None:
    @app.get("/version")
    async def version() -> dict[str, str]:
        """Our version and vLLM's."""
        return {"version": __version__, "vllm": installed_vllm_version()}


def _add_models(app: FastAPI, completions: ThinkingCompletions, engine: Engine) -> None:
    limits = engine.setup.limits
    quiet_star = {
        "max_thought_budget": limits.max_budget,
        "default_thought_budget": limits.default_budget,
        "embedding_mode": engine.setup.config.embedding_mode,
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What is served, and how much it may think. `max_model_len` includes the last thought."""
        listed = (await completions.models.show_available_models()).model_dump()
        for model in listed["data"]:
            model["quiet_star"] = quiet_star
        return listed


def _add_completions(
    app: FastAPI, completions: ThinkingCompletions, keep_alive_interval: float
) -> None:
    @app.post(
        "/v1/completions",
        dependencies=[Depends(validate_json_request)],
        # Documented, not checked: nothing is returned to a client that has left.
        response_model=None,
        responses=_RESPONSES,
    )
    @with_cancellation  # type: ignore[untyped-decorator]  # keeps the signature
    async def create_completion(
        request: ThinkingCompletionRequest, raw_request: Request
    ) -> Response:
        """Complete a prompt (OpenAI's completions API, with vLLM's additions and ours about
        thoughts)."""
        result = await completions.complete(request, raw_request)
        if isinstance(result, ErrorResponse):
            return _error(result)
        if isinstance(result, dict):
            return JSONResponse(result)
        return StreamingResponse(
            with_sse_keep_alive(result, keep_alive_interval), media_type="text/event-stream"
        )


async def _bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BadRequest | ThoughtParamsError)
    return _error(create_error_response(str(error), param=error.parameter))


def _error(response: ErrorResponse) -> JSONResponse:
    return JSONResponse(response.model_dump(), status_code=response.error.code)
