"""Everything that the server takes from vLLM; no other file of it imports vLLM.

The engine, and the parts of vLLM's own OpenAI layer that are used as they are.
"""

import os
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs, get_kwargs
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.launchers.launcher import create_server_socket
from vllm.entrypoints.launchers.utils.server_utils import lifespan
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import (
    CompletionRequest,
    CompletionResponse,
    CompletionResponseChoice,
)
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, OpenAIBaseModel
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.exception_handling.handlers.validation import clean_loc_for_param
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.instrumentator import offline_docs
from vllm.entrypoints.serve.instrumentator.health import health
from vllm.entrypoints.serve.instrumentator.health import router as health_router
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware
from vllm.entrypoints.serve.tokenize.api_router import router as tokenize_router
from vllm.entrypoints.serve.tokenize.serving import ServingTokenization
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.entrypoints.serve.utils.request_logger import RequestLogger
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive
from vllm.inputs import EngineInput
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.renderers.chat_utils import (
    ChatTemplateResolutionError,
    ConversationMessage,
    load_chat_template,
    validate_chat_template,
)
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tool_parsers import ToolParserManager
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase, StatLoggerFactory
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from quietstar_infer.config import read_json
from quietstar_infer.plugin import installed_vllm_version
from quietstar_infer.vllm_plugin.options import (
    ThinkingOptions,
    ThinkingSetup,
    prepare_engine_args,
    thinking_setup,
)
from server.defaults import cpu_dtype, cpu_kv_cache_bytes
from server.errors import EngineFailed, ExitStatus, StartError
from server.failures import advice, failure_reports, lacking
from server.request_metrics import RequestMetrics

__all__ = [
    "SWAGGER_FOLDER",
    "AsyncEngineArgs",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionResponseChoice",
    "ChatTemplateResolutionError",
    "CompletionRequest",
    "CompletionResponse",
    "CompletionResponseChoice",
    "ConversationMessage",
    "Engine",
    "EngineInput",
    "ErrorResponse",
    "FlexibleArgumentParser",
    "GenerateBaseServing",
    "Logprob",
    "OpenAIBaseModel",
    "OpenAIServingChat",
    "OpenAIServingCompletion",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "ServingParts",
    "ThinkingOptions",
    "ThinkingSetup",
    "clean_loc_for_param",
    "create_error_response",
    "create_server_socket",
    "engine_arguments",
    "frontend_arguments",
    "health",
    "health_router",
    "init_exception_handler",
    "installed_vllm_version",
    "lifespan",
    "running_engine",
    "tokenize_router",
    "tokens_input",
    "use_middleware",
    "validate_json_request",
    "with_sse_keep_alive",
]

# The script and the style of the page about the API, which come with vLLM.
SWAGGER_FOLDER = Path(offline_docs.__file__).parent / "static"


class Engine(NamedTuple):
    """A running engine and what it was started with."""

    client: AsyncLLM
    config: VllmConfig
    setup: ThinkingSetup
    # The names that requests may call the model by; the first is the one in responses.
    model_names: tuple[str, ...]
    request_metrics: RequestMetrics

    @property
    def context_length(self) -> int:
        """Positions per sequence, thoughts included."""
        return self.config.model_config.max_model_len

    @property
    def vocab_size(self) -> int:
        return self.config.model_config.get_vocab_size()

    @property
    def block_size(self) -> int:
        """Tokens in a block of the KV cache: what the prefix cache shares is made of whole ones."""
        return self.config.cache_config.block_size

    @property
    def max_rows(self) -> int:
        """Sequences in one batch."""
        return self.config.scheduler_config.max_num_seqs

    @property
    def has_priorities(self) -> bool:
        """Whether some requests are served before others that came earlier."""
        return self.config.scheduler_config.policy == "priority"

    @property
    def prompt_chunk(self) -> int:
        """Tokens of a prompt that one pass reads at most."""
        return self.config.scheduler_config.max_num_batched_tokens

    @property
    def checkpoint(self) -> Path:
        """The local folder that is served."""
        return Path(self.config.model_config.model)

    async def take_thoughts(self, key: str) -> Mapping[str, list[dict[str, Any]]]:
        """Remove from the workers and return what was thought under a record key, by the engine's
        request id."""
        # Tensor-parallel ranks think, and record, the same.
        by_rank: list[dict[str, list[dict[str, Any]]]]
        by_rank = await self.client.collective_rpc("take_thoughts", args=(key,))
        return by_rank[0]

    async def drop_thoughts(self, key: str) -> None:
        """Make the workers forget what was thought under a record key."""
        await self.client.collective_rpc("drop_thoughts", args=(key,))

    async def thought_metrics(self) -> Mapping[str, Any]:
        """What thinking has cost and come to since the engine started, see the worker's method."""
        # Every tensor-parallel rank counts all of it: to add them up would count it twice.
        by_rank: list[dict[str, Any]] = await self.client.collective_rpc("thought_metrics")
        return by_rank[0]


class _VisibleTokens(StatLoggerBase):
    """Counts visible tokens step by step, as the engine says them; whole responses come too late
    for a rate."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if iteration_stats is not None:
            self._metrics.count_visible_tokens(iteration_stats.num_generation_tokens)

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def frontend_arguments(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """argparse's keyword arguments of some options of `vllm serve`, by option name."""
    known = FrontendArgs._customize_cli_kwargs(get_kwargs(FrontendArgs))
    return {name: known[name] for name in names}


def engine_arguments(args: Namespace, options: ThinkingOptions) -> AsyncEngineArgs:
    """vLLM's engine arguments for a parsed command line, made ready for thinking.

    Raises `StartError`, and what `prepare_engine_args` does: `CheckpointError`, `UnsupportedError`
    and `ValueError`.
    """
    _check_chat_options(args)
    try:
        # Where the hub is out of bounds (HF_HUB_OFFLINE), vLLM looks for the model at once.
        engine_args: AsyncEngineArgs = AsyncEngineArgs.from_cli_args(args)
    except LocalEntryNotFoundError:
        raise StartError(
            f"{args.model} is not a folder, and not in the cache of downloaded models",
            ExitStatus.NO_MODEL,
        ) from None
    prepare_engine_args(engine_args, options)
    if current_platform.is_cpu():
        _suit_cpu(engine_args)
    return engine_args


def _check_chat_options(args: Namespace) -> None:
    """vLLM does this when the engine has started already."""
    try:
        validate_chat_template(args.chat_template)
    except ValueError as error:
        raise StartError(f"--chat-template: {error}") from error
    if args.enable_auto_tool_choice and args.tool_call_parser is None:
        raise StartError("--enable-auto-tool-choice needs a --tool-call-parser")
    parsers = ToolParserManager.list_registered()
    if args.tool_call_parser not in (None, *parsers):
        raise StartError(
            f"--tool-call-parser {args.tool_call_parser} is not known: {', '.join(parsers)}"
        )


def _suit_cpu(engine_args: AsyncEngineArgs) -> None:
    if engine_args.dtype == "auto":
        engine_args.dtype = cpu_dtype(read_json(Path(engine_args.model) / "config.json"))
    asked_for = (
        engine_args.kv_cache_memory_bytes is not None
        or engine_args.gpu_memory_utilization != AsyncEngineArgs.gpu_memory_utilization
        or os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    )
    if not asked_for:
        engine_args.kv_cache_memory_bytes = cpu_kv_cache_bytes()


@asynccontextmanager
async def running_engine(engine_args: AsyncEngineArgs) -> AsyncIterator[Engine]:
    """An engine for the length of a `with` block.

    Raises `StartError` where vLLM refuses the options, `EngineFailed` where the engine does not
    start.
    """
    config = _engine_config(engine_args)
    setup, names = thinking_setup(config), _model_names(engine_args)
    metrics = RequestMetrics(names[0], setup.limits.max_budget)
    client = _start(config, engine_args, metrics)
    try:
        yield Engine(client, config, setup, names, metrics)
    finally:
        client.shutdown(timeout=config.shutdown_timeout)


def _start(config: VllmConfig, engine_args: AsyncEngineArgs, metrics: RequestMetrics) -> AsyncLLM:
    # One of ours would switch vLLM's statistics on again.
    stat_loggers: list[StatLoggerFactory] = []
    if not engine_args.disable_log_stats:
        stat_loggers.append(lambda *_: _VisibleTokens(metrics))
    with failure_reports() as report:
        try:
            return AsyncLLM.from_vllm_config(
                config,
                stat_loggers=stat_loggers,
                usage_context=UsageContext.OPENAI_API_SERVER,
                enable_log_requests=engine_args.enable_log_requests,
                aggregate_engine_logging=engine_args.aggregate_engine_logging,
                disable_log_stats=engine_args.disable_log_stats,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = report.read_text() if report.exists() else str(error)
            status = lacking(reason) or ExitStatus.ENGINE_FAILED
            raise EngineFailed(f"the engine did not start: {advice(reason)}", status) from error


def _engine_config(engine_args: AsyncEngineArgs) -> VllmConfig:
    try:
        return engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except ValidationError as error:
        raise StartError("; ".join(problem["msg"] for problem in error.errors())) from error
    except (ValueError, NotImplementedError) as error:
        raise StartError(str(error)) from error


def use_middleware(app: FastAPI, args: Namespace) -> None:
    """vLLM's middleware, each where the options ask for it: CORS, request ids, the user's own."""
    # An empty key stands for none, not even that of the environment: keys are `server.keys`' part.
    # No tasks: the middleware that belongs to one is for elastic expert parallelism, which is not
    # served.
    init_entrypoints_middleware(Namespace(**{**vars(args), "api_key": [""]}), app, ())


class ServingParts:
    """What vLLM's serving classes are made from; made once, for all of them."""

    def __init__(self, engine: Engine, args: Namespace) -> None:
        self._engine = engine
        self._args = args
        self._logger = (
            RequestLogger(max_log_len=args.max_log_len) if args.enable_log_requests else None
        )
        self._templates = {
            "chat_template": load_chat_template(args.chat_template),
            "chat_template_content_format": args.chat_template_content_format,
            "default_chat_template_kwargs": args.default_chat_template_kwargs,
            "trust_request_chat_template": args.trust_request_chat_template,
        }
        self._parsers = {
            "enable_auto_tools": args.enable_auto_tool_choice,
            "exclude_tools_when_tool_choice_none": args.exclude_tools_when_tool_choice_none,
            "tool_parser": args.tool_call_parser,
            "tool_strict_level": args.tool_strict_level,
            "reasoning_parser": engine.config.structured_outputs_config.reasoning_parser,
        }
        folder = engine.config.model_config.model
        self.models = OpenAIServingModels(
            engine.client,
            [BaseModelPath(name=name, model_path=folder) for name in engine.model_names],
        )
        self._renderer = OnlineRenderer(
            engine.client.model_config,
            engine.client.renderer,
            request_logger=self._logger,
            **self._templates,
            **self._parsers,
        )

    @property
    def of_completions(self) -> dict[str, Any]:
        """The arguments that `OpenAIServingCompletion` is made from."""
        return {
            "engine_client": self._engine.client,
            "models": self.models,
            "online_renderer": self._renderer,
            "request_logger": self._logger,
            "return_tokens_as_token_ids": self._args.return_tokens_as_token_ids,
            "enable_prompt_tokens_details": self._args.enable_prompt_tokens_details,
            "enable_force_include_usage": self._args.enable_force_include_usage,
            "enable_per_request_metrics": self._args.enable_per_request_metrics,
        }

    @property
    def of_chats(self) -> dict[str, Any]:
        """The arguments that `OpenAIServingChat` is made from."""
        return {
            **self.of_completions,
            **self._templates,
            **self._parsers,
            "response_role": self._args.response_role,
        }

    def tokenization(self) -> ServingTokenization:
        """What answers `/tokenize` and `/detokenize`."""
        return ServingTokenization(
            self.models, self._renderer, request_logger=self._logger, **self._templates
        )


def _model_names(engine_args: AsyncEngineArgs) -> tuple[str, ...]:
    names = engine_args.served_model_name or engine_args.model
    return (names,) if isinstance(names, str) else tuple(names)
