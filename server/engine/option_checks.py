"""Options that vLLM and uvicorn check only while the engine starts, after that, or with the first
request.
"""

import ssl
from argparse import Namespace
from importlib import import_module

from jinja2 import Environment, TemplateSyntaxError

from server.errors import ExitStatus, StartError
from server.vllm_api import (
    LogitsProcessor,
    ReasoningParserManager,
    ToolParserManager,
    VLLMClientError,
    load_chat_template,
    validate_chat_template,
)


def check_start_options(args: Namespace) -> None:
    """Raise `StartError` for the first option that cannot work."""
    _check_names(args.served_model_name or [])
    _check_template_option(args.chat_template)
    if args.enable_auto_tool_choice and args.tool_call_parser is None:
        raise StartError("--enable-auto-tool-choice needs a --tool-call-parser")
    _check_known("--tool-call-parser", args.tool_call_parser, ToolParserManager.list_registered())
    reasoning = getattr(args, "reasoning_parser", "") or None
    _check_known("--reasoning-parser", reasoning, ReasoningParserManager.list_registered())
    for name in args.middleware:
        _imported("--middleware", name, ".")
    if args.worker_extension_cls:
        _imported("--worker-extension-cls", args.worker_extension_cls, ".")
    for name in args.logits_processors or []:
        _check_logits_processor(name)
    _check_certificate(args)


def check_template(source: str, template: str, status: ExitStatus = ExitStatus.BAD_OPTION) -> None:
    """Raise `StartError` for a chat template that is no Jinja template; `source` names it."""
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError as error:
        if "generation" in str(error.message):
            return  # a tag that transformers adds
        raise StartError(f"{source}, line {error.lineno}: {error.message}", status) from error


def _check_template_option(template: str | None) -> None:
    try:
        validate_chat_template(template)
        text = load_chat_template(template) or ""
    except (ValueError, VLLMClientError) as error:
        raise StartError(f"--chat-template: {error}") from error
    check_template("--chat-template", text)


def _check_names(names: list[str | None]) -> None:
    # vLLM reads an empty one as None.
    if not all(names):
        raise StartError("--served-model-name has an empty name: give one, or leave it out")


def _check_known(option: str, name: str | None, known: list[str]) -> None:
    if name not in (None, *known):
        raise StartError(f"{option} {name} is not known: {', '.join(known)}")


def _check_logits_processor(name: str) -> None:
    processor = _imported("--logits-processors", name, ":")
    if not (isinstance(processor, type) and issubclass(processor, LogitsProcessor)):
        raise StartError(f"--logits-processors {name} is no subclass of vLLM's LogitsProcessor")


def _imported(option: str, name: str, separator: str) -> object:
    module, _, attribute = name.rpartition(separator)
    try:
        return getattr(import_module(module), attribute)
    # A module can fail in any way.
    except Exception as error:
        raise StartError(
            f"{option} {name} is no class or function that can be imported: {error}"
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
