"""The command line: `python -m server MODEL [options]`."""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from quietstar_infer.config import EMBEDDING_MODES
from quietstar_infer.errors import CheckpointError
from server.admission.options import add_connection_options, add_limit_options
from server.api.usage import add_usage_option
from server.engine.failures import explanation, known_remedy
from server.engine.headless import serve_headless
from server.engine.startup import engine_arguments, frontend_arguments
from server.errors import ExitStatus, StartError
from server.lifecycle import serve
from server.middleware.auth import add_key_option
from server.requests.aliases import add_alias_option
from server.vllm_api import (
    AsyncEngineArgs,
    FlexibleArgumentParser,
    SpeculativeThoughts,
    ThinkingOptions,
)

PROGRAM = "python -m server"
DEFAULT_SHUTDOWN_SECONDS = 30
# The options of `vllm serve` that this server has, too.
FRONTEND_OPTIONS = (
    "api_key",
    "allowed_origins",
    "allowed_methods",
    "allowed_headers",
    "allow_credentials",
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_ciphers",
    "root_path",
    "middleware",
    "enable_request_id_headers",
    "disable_fastapi_docs",
    "uvicorn_log_level",
    "disable_uvicorn_access_log",
    "log_error_stack",
    "max_log_len",
    "sse_keep_alive_interval",
    "return_tokens_as_token_ids",
    "enable_prompt_tokens_details",
    "enable_force_include_usage",
    "enable_per_request_metrics",
    "chat_template",
    "chat_template_content_format",
    "default_chat_template_kwargs",
    "trust_request_chat_template",
    "response_role",
    "enable_auto_tool_choice",
    "exclude_tools_when_tool_choice_none",
    "tool_call_parser",
    "tool_strict_level",
)
DESCRIPTION = """\
Serve a Quiet-STaR model behind the OpenAI API, on vLLM. Before every visible token the model
samples a short hidden thought; requests set its length with "thought_budget"."""
EPILOG = """\
Every engine option of vLLM can be given too:
  --help=all             all options
  --help=ModelConfig     one group, any case
  --help=max-model-len   one option"""


class Parser(FlexibleArgumentParser):
    """vLLM's parser; its help shows our options first, and its errors are one line."""

    shown: tuple["argparse._ArgumentGroup", ...] = ()

    def format_help(self) -> str:
        if self._search_keyword is not None:
            return str(super().format_help())  # type: ignore[no-untyped-call]
        formatter = argparse.HelpFormatter(PROGRAM)
        formatter.add_text(self.description)
        formatter.add_text(f"usage: {PROGRAM} MODEL [options]")
        for group in self.shown:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            for action in group._group_actions:
                formatter.add_argument(action)
            formatter.end_section()
        # The first two groups are argparse's own: positional arguments and --help.
        others = [group.title for group in self._action_groups[2:] if group not in self.shown]
        formatter.add_text(f"More groups: {', '.join(title for title in others if title)}")
        formatter.add_text(EPILOG)
        return formatter.format_help()

    def load_config_file(self, file_path: str) -> list[str]:
        """vLLM's own; raises `ValueError` where the file does not hold options."""
        content = yaml.safe_load(Path(file_path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ValueError(f"{file_path} should have a line like 'port: 8000' for each option")
        if missing := [name for name, value in content.items() if value is None]:
            raise ValueError(f"{file_path} has no value for {', '.join(missing)}")
        arguments: list[str] = super().load_config_file(file_path)
        return arguments

    def error(self, message: str) -> NoReturn:
        # pydantic's messages have several lines, the last of which is an address of its own.
        message = " ".join(message.partition("For further information")[0].split())
        message = re.sub(r"<function loads at \w+>", "JSON", message)
        self.exit(ExitStatus.BAD_OPTION, f"{PROGRAM}: {message} (see {PROGRAM} --help)\n")


def make_parser() -> Parser:
    """All options: ours, those of the HTTP server, and vLLM's."""
    parser = Parser(prog=PROGRAM, description=DESCRIPTION)  # type: ignore[no-untyped-call]
    thinking = parser.add_argument_group("thinking")  # type: ignore[no-untyped-call]
    _add_thinking_options(thinking)
    http = parser.add_argument_group("HTTP server")  # type: ignore[no-untyped-call]
    http.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    http.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="port to listen on; 0 = any free one (default: %(default)s)",
    )
    add_key_option(http)
    limits = parser.add_argument_group(  # type: ignore[no-untyped-call]
        "limits", "0 = no limit. docs/operations.md explains them."
    )
    add_limit_options(limits)
    parser.shown = (thinking, http, limits)
    more = parser.add_argument_group("more of the HTTP server")  # type: ignore[no-untyped-call]
    for name, arguments in frontend_arguments(FRONTEND_OPTIONS).items():
        more.add_argument(f"--{name.replace('_', '-')}", **arguments)
    add_usage_option(more)
    more.add_argument(
        "--allowed-hosts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names by which requests may call a server without API keys that listens on this "
        "machine only, beside localhost and addresses: of a proxy that passes the Host header on",
    )
    add_connection_options(more)
    more.add_argument(
        "--headless",
        action="store_true",
        help="no HTTP server: run replicas for a server on another machine (docs/scale.md)",
    )
    more.add_argument("--config", help="YAML file with options, by their long names without --")
    AsyncEngineArgs.add_cli_args(parser)
    # By default the server logs little, and lets running requests finish when it is stopped.
    parser.set_defaults(model=None, uvicorn_log_level="warning")
    parser.set_defaults(shutdown_timeout=DEFAULT_SHUTDOWN_SECONDS)
    return parser


def _add_thinking_options(group: Any) -> None:
    group.add_argument(
        "checkpoint",
        metavar="MODEL",
        nargs="?",
        help="folder or Hugging Face name of a Quiet-STaR checkpoint (or --model MODEL)",
    )
    group.add_argument(
        "--max-thought-budget",
        type=int,
        default=ThinkingOptions.max_thought_budget,
        metavar="N",
        help="the longest thought that a request may set, in tokens before each visible one "
        "(default: %(default)s). A thought of N tokens takes N+1 passes where plain decoding takes "
        "one, and N+1 positions of the context; 0 = no thinking",
    )
    group.add_argument(
        "--default-thought-budget",
        type=int,
        metavar="N",
        help="the length of thoughts for requests that set none (default: the checkpoint's)",
    )
    group.add_argument(
        "--default-thought-temperature",
        type=float,
        default=ThinkingOptions.default_thought_temperature,
        metavar="T",
        help="the temperature of thoughts for requests that set none; 0 = greedy (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--default-thought-threshold",
        type=float,
        metavar="NATS",
        help="for requests that set none: think before a token only where the thought is expected "
        "to save more than this; 0 = before every token (default: the checkpoint's)",
    )
    group.add_argument(
        "--thought-embeddings",
        choices=EMBEDDING_MODES,
        help="the embeddings of START and END: the trained ones (learned), or that of '---' "
        "(reset), as in the published evaluation script (default: the checkpoint's)",
    )
    group.add_argument(
        "--allow-return-thoughts",
        action="store_true",
        help="let requests see their thoughts, with return_thoughts. Thoughts are not filtered: "
        "they may contain what a prompt keeps out of the answer (default: off)",
    )
    add_alias_option(group)
    group.add_argument(
        "--max-thought-burst",
        type=int,
        metavar="N",
        help="passes that one engine step may run while all requests in the batch are thinking "
        "(multi-step): faster, but a new request may wait for it (default: 16 on a CPU, 1 on CUDA; "
        "always 1 with pipeline parallelism)",
    )
    group.add_argument(
        "--speculative-thoughts",
        "--no-speculative-thoughts",
        action=_SpeculativeThoughts,
        nargs="?",
        default=ThinkingOptions.speculative_thoughts,
        metavar="auto|off|N",
        help="feed up to N drafted tokens of a thought in one pass of a multi-step: the same "
        "thoughts in fewer passes. auto: where and as many as pay, by measurement; not with "
        "asynchronous scheduling or pipeline parallelism (default: auto)",
    )
    group.add_argument(
        "--max-recorded-thought-tokens",
        type=int,
        default=ThinkingOptions.max_recorded_thought_tokens,
        metavar="N",
        help="thought tokens kept, at most, for requests that asked to see them; what exceeds it "
        "is missing from their answers (default: %(default)s)",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, must be from 0 to 65535")
    return int(text)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line, with the model in `model`; exits where it is wrong."""
    parser = make_parser()
    try:
        args = parser.parse_args(list(arguments))
    except (OSError, yaml.YAMLError, ValueError, AssertionError) as error:
        # The file is read while arguments are parsed.
        parser.error(f"--config is not a YAML file with options: {error}")
    assert isinstance(args, argparse.Namespace)
    if args.checkpoint and args.model and args.checkpoint != args.model:
        parser.error(f"two models, {args.checkpoint} and {args.model}: give one")
    args.model = args.checkpoint or args.model
    if not args.model:
        parser.error("which model? For instance: python -m server models/demo")
    for option in ("max_thought_budget", "max_recorded_thought_tokens"):
        if getattr(args, option) < 0:
            parser.error(
                f"--{option.replace('_', '-')} is {getattr(args, option)}, must be 0 or more"
            )
    if args.max_thought_burst is not None and args.max_thought_burst < 1:
        parser.error(f"--max-thought-burst is {args.max_thought_burst}, must be 1 or more")
    return args


def thinking_options(args: argparse.Namespace) -> ThinkingOptions:
    """The options about thinking, of a parsed command line."""
    return ThinkingOptions(
        max_thought_budget=args.max_thought_budget,
        default_thought_budget=args.default_thought_budget,
        default_thought_temperature=args.default_thought_temperature,
        default_thought_threshold=args.default_thought_threshold,
        embedding_mode=args.thought_embeddings,
        max_recorded_thought_tokens=args.max_recorded_thought_tokens,
        max_thought_burst=args.max_thought_burst,
        speculative_thoughts=args.speculative_thoughts,
    )


class _SpeculativeThoughts(argparse.Action):
    """auto, off or a number. In a YAML file, `off` means false, which vLLM's parser turns into the
    option's name with "no-" before it, and `on` is the option without a value.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        negated = bool(option_string and option_string.lstrip("-").startswith("no"))
        setattr(namespace, self.dest, self._parsed(values, negated))

    def _parsed(self, value: str | None, negated: bool) -> SpeculativeThoughts:
        if negated and value is None:
            return 0
        if not negated and value in (None, "auto"):
            return "auto"
        if not negated and value == "off":
            return 0
        if negated or not str(value).isdecimal():
            raise argparse.ArgumentError(
                self, f"{value!r} is neither auto nor off nor a number of drafts"
            )
        return int(str(value))


def main(arguments: Sequence[str]) -> int:
    """Run the server; returns the exit status."""
    args = parse_arguments(arguments)
    # While the engine starts, a signal ends this process at once, and with it the engine's
    # processes (engine.child_process): to unwind vLLM's start can take forever.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        engine_args = engine_arguments(args, thinking_options(args))
        print(f"Starting the engine for {args.model} …", flush=True)
        if args.headless:
            serve_headless(engine_args)
        else:
            asyncio.run(serve(args, engine_args))
    except (StartError, ValueError, OSError, MemoryError) as error:
        status = _status_of(error)
        if status is None:
            raise
        print(f"{PROGRAM}: {_message_of(error)}", file=sys.stderr, flush=True)
        return status
    return ExitStatus.STOPPED


def _status_of(error: Exception) -> ExitStatus | None:
    """The exit status for an error; None for a fault of the program."""
    if isinstance(error, StartError):
        return error.status
    if remedy := known_remedy(error):
        return remedy.status
    if isinstance(error, CheckpointError):
        return ExitStatus.NO_MODEL
    return ExitStatus.BAD_OPTION if isinstance(error, ValueError) else None


def _message_of(error: Exception) -> str:
    return " ".join(str(error).split()) if isinstance(error, StartError) else explanation(error)
