"""Everything that the server uses of vLLM and of our vLLM plugin, re-exported.

No other file of the server imports either (a test holds it to that), so that this list shows what a
new version of vLLM may break. It lies beside `engine/` rather than in it: request schemas extend
vLLM's own and must not depend on our engine.
"""

from vllm import envs
from vllm.config import ParallelConfig, VllmConfig
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
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, OpenAIBaseModel, UsageInfo
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.exception_handling.handlers.validation import clean_loc_for_param
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.instrumentator import offline_docs
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware
from vllm.entrypoints.serve.tokenize.api_router import router as tokenize_router
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    TokenizeRequest,
    TokenizeResponse,
)
from vllm.entrypoints.serve.tokenize.serving import ServingTokenization
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.entrypoints.serve.utils.request_logger import RequestLogger
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive
from vllm.exceptions import GenerationError, VLLMClientError
from vllm.inputs import EngineInput
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.reasoning import ReasoningParserManager
from vllm.renderers.chat_utils import (
    ChatTemplateResolutionError,
    ConversationMessage,
    load_chat_template,
    validate_chat_template,
)
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.tokenizers import TokenizerLike
from vllm.tool_parsers import ToolParserManager
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.network_utils import get_tcp_uri
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.utils import CoreEngineProcManager
from vllm.v1.executor.abstract import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.metrics.loggers import StatLoggerBase, StatLoggerFactory
from vllm.v1.metrics.stats import IterationStats, SchedulerStats
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar
from vllm.v1.structured_output.request import StructuredOutputRequest

from quietstar_infer.plugin import installed_vllm_version
from quietstar_infer.vllm_plugin.logits_processors import NONE_LEFT, NOT_FINITE
from quietstar_infer.vllm_plugin.options import (
    ThinkingOptions,
    ThinkingSetup,
    check_vllm_config,
    prepare_engine_args,
    thinking_setup,
)
from quietstar_infer.vllm_plugin.speculation.policy import SpeculativeThoughts
from quietstar_infer.vllm_plugin.thought_usage import take_usage
from quietstar_infer.vllm_plugin.workers.executor import openmp_environment

__all__ = [
    "NONE_LEFT",
    "NOT_FINITE",
    "AsyncEngineArgs",
    "AsyncLLM",
    "BaseModelPath",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionResponseChoice",
    "ChatTemplateResolutionError",
    "CompletionRequest",
    "CompletionResponse",
    "CompletionResponseChoice",
    "ConversationMessage",
    "CoreEngineProcManager",
    "DetokenizeRequest",
    "DetokenizeResponse",
    "EngineCoreOutput",
    "EngineDeadError",
    "EngineInput",
    "ErrorResponse",
    "Executor",
    "FlexibleArgumentParser",
    "FrontendArgs",
    "GenerateBaseServing",
    "GenerationError",
    "IterationStats",
    "LogitsProcessor",
    "Logprob",
    "MultiprocExecutor",
    "OnlineRenderer",
    "OpenAIBaseModel",
    "OpenAIServingChat",
    "OpenAIServingCompletion",
    "OpenAIServingModels",
    "ParallelConfig",
    "ReasoningParserManager",
    "RequestLogger",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "SchedulerStats",
    "ServingTokenization",
    "SpeculativeThoughts",
    "StatLoggerBase",
    "StatLoggerFactory",
    "StructuredOutputGrammar",
    "StructuredOutputManager",
    "StructuredOutputRequest",
    "StructuredOutputsParams",
    "ThinkingOptions",
    "ThinkingSetup",
    "TokenizeChatRequest",
    "TokenizeCompletionRequest",
    "TokenizeRequest",
    "TokenizeResponse",
    "TokenizerLike",
    "ToolParserManager",
    "UsageContext",
    "UsageInfo",
    "VLLMClientError",
    "VllmConfig",
    "check_vllm_config",
    "clean_loc_for_param",
    "create_error_response",
    "create_server_socket",
    "current_platform",
    "envs",
    "get_kwargs",
    "get_tcp_uri",
    "init_entrypoints_middleware",
    "init_exception_handler",
    "installed_vllm_version",
    "lifespan",
    "load_chat_template",
    "offline_docs",
    "openmp_environment",
    "prepare_engine_args",
    "take_usage",
    "thinking_setup",
    "tokenize_router",
    "tokens_input",
    "validate_chat_template",
    "validate_json_request",
    "with_sse_keep_alive",
]
