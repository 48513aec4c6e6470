"""What vLLM's serving classes are constructed from."""

from argparse import Namespace
from typing import Any

from fastapi import FastAPI

from server.engine.engine import Engine
from server.vllm_api import (
    BaseModelPath,
    OnlineRenderer,
    OpenAIServingModels,
    RequestLogger,
    init_entrypoints_middleware,
    load_chat_template,
)


class ServingParts:
    """The parts that all of vLLM's serving classes share, made once."""

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
        names = (*engine.model_names, *engine.aliases)
        self.models = OpenAIServingModels(
            engine.client, [BaseModelPath(name=name, model_path=folder) for name in names]
        )
        self._renderer = OnlineRenderer(
            engine.client.model_config,
            engine.client.renderer,
            request_logger=self._logger,
            **self._templates,
            **self._parsers,
        )

    @property
    def for_completions(self) -> dict[str, Any]:
        """The arguments of `OpenAIServingCompletion`."""
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
    def for_chats(self) -> dict[str, Any]:
        """The arguments of `OpenAIServingChat`."""
        return {
            **self.for_completions,
            **self._templates,
            **self._parsers,
            "response_role": self._args.response_role,
        }

    @property
    def for_tokenization(self) -> dict[str, Any]:
        """The arguments of `ServingTokenization`."""
        return {
            "models": self.models,
            "online_renderer": self._renderer,
            "request_logger": self._logger,
            **self._templates,
        }


def add_vllm_middleware(app: FastAPI, args: Namespace) -> None:
    """Add the middleware of vLLM that the options ask for: CORS, request ids, the user's own."""
    # An empty key means no key, not even one of the environment: `middleware.auth` checks keys.
    # No tasks: their middleware is for elastic expert parallelism, which is not supported.
    init_entrypoints_middleware(Namespace(**{**vars(args), "api_key": [""]}), app, ())
