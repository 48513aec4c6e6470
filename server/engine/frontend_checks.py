"""Options of the HTTP server that vLLM and uvicorn check only after the engine has started, or with
the first request.
"""

import ssl
from argparse import Namespace
from importlib import import_module

from jinja2 import Environment, TemplateSyntaxError

from server.errors import StartError
from server.vllm_api import (
    ReasoningParserManager,
    ToolParserManager,
    load_chat_template,
    validate_chat_template,
)


def check_frontend(args: Namespace) -> None:
    """Raise `StartError` for the first option that cannot work."""
    _check_template(args.chat_template)
    if args.enable_auto_tool_choice and args.tool_call_parser is None:
        raise StartError("--enable-auto-tool-choice needs a --tool-call-parser")
    _check_name("--tool-call-parser", args.tool_call_parser, ToolParserManager.list_registered())
    reasoning = getattr(args, "reasoning_parser", "") or None
    _check_name("--reasoning-parser", reasoning, ReasoningParserManager.list_registered())
    for name in args.middleware:
        _check_middleware(name)
    _check_certificate(args)


def _check_template(template: str | None) -> None:
    try:
        validate_chat_template(template)
        environment = Environment(extensions=["jinja2.ext.loopcontrols"])
        environment.parse(load_chat_template(template) or "")
    except TemplateSyntaxError as error:
        if "generation" in str(error.message):
            return  # a tag that transformers adds
        raise StartError(f"--chat-template, line {error.lineno}: {error.message}") from error
    except ValueError as error:
        raise StartError(f"--chat-template: {error}") from error


def _check_name(option: str, name: str | None, known: list[str]) -> None:
    if name not in (None, *known):
        raise StartError(f"{option} {name} is not known: {', '.join(known)}")


def _check_middleware(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise StartError(
            f"--middleware {name} is no class or function that can be imported: {error}"
        ) from error


def _check_certificate(args: Namespace) -> None:
    if args.ssl_keyfile and not args.ssl_certfile:
        raise StartError("--ssl-keyfile needs an --ssl-certfile")
    if not args.ssl_certfile:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(args.ssl_certfile, args.ssl_keyfile)
        if args.ssl_ca_certs:
            context.load_verify_locations(args.ssl_ca_certs)
        context.set_ciphers(args.ssl_ciphers or "DEFAULT")
    except OSError as error:
        raise StartError(
            f"the certificate cannot be used (--ssl-certfile {args.ssl_certfile}, --ssl-keyfile "
            f"{args.ssl_keyfile}, --ssl-ca-certs, --ssl-ciphers): {error}"
        ) from error
