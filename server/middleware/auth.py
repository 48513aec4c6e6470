"""API keys: where they come from, and which requests need one."""

import hashlib
import hmac
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.error_responses import refusal
from server.errors import StartError, Unauthorized

# Several keys, separated by commas or spaces; and vLLM's variable, for one key.
KEYS_VARIABLE, VLLM_KEY_VARIABLE = "QUIETSTAR_API_KEYS", "VLLM_API_KEY"
# For probes, scrapers and browsers that have no key yet. All other paths need one, those that are
# added later included.
OPEN_PATHS = frozenset({"/", "/health", "/ping", "/version", "/load", "/metrics"})
OPEN_FOLDERS = ("/page/",)


class ApiKeys:
    """The keys that the server accepts; without any it is open to everyone."""

    def __init__(self, keys: Iterable[str]) -> None:
        # Digests: a memory dump or an error's local variables show no key, and all comparisons take
        # the same time.
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header has one of the keys, compared in constant time."""
        scheme, _, key = (authorization or "").partition(" ")
        # Starlette decodes all headers as latin-1.
        given = _digest(key.strip().encode("latin-1"))
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def read_keys(args: Namespace, environment: Mapping[str, str]) -> ApiKeys:
    """All keys of the command line, the key file and the environment.

    Raises `StartError` for an option, a file or a variable that is given and has no key: who gives
    one does not want an open server.
    """
    keys: set[str] = set()
    if args.api_key is not None:
        keys |= _some(args.api_key, "--api-key")
    if args.api_key_file is not None:
        keys |= _keys_in(args.api_key_file)
    for variable in (KEYS_VARIABLE, VLLM_KEY_VARIABLE):
        if variable in environment:
            text = environment[variable]
            several = text.replace(",", " ") if variable == KEYS_VARIABLE else text
            keys |= _some(several.split(), f"the environment variable {variable}")
    return ApiKeys(keys)


def add_key_option(group: Any) -> None:
    """Add --api-key-file to a group of a parser."""
    group.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="API keys, one per line, # begins a comment. Also QUIETSTAR_API_KEYS in the "
        "environment; --api-key is visible to all users of the machine (default: none needed)",
    )


def _some(keys: Iterable[str | None], where: str) -> set[str]:
    """The keys, stripped; raises `StartError` where there is none or one is empty."""
    # vLLM's parser makes None of an empty one.
    stripped = {(key or "").strip() for key in keys}
    if not stripped or "" in stripped:
        raise StartError(f"{where} holds no key: leave it out for a server without keys")
    return stripped


def _keys_in(file: Path) -> set[str]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--api-key-file {file} cannot be read: {error}") from error
    keys = {line for line in lines if line and not line.startswith("#")}
    if not keys:
        raise StartError(f"--api-key-file {file} holds no key: write one per line")
    return keys


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class KeyMiddleware:
    """Answers 401 to requests without a key."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allowed(scope):
            await _unauthorized()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        # Browsers ask by OPTIONS, without the key, whether they may send it (CORS).
        if scope["method"] == "OPTIONS" or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return True
        return self._keys.accept(Headers(scope=scope).get("authorization"))


def _unauthorized() -> JSONResponse:
    return refusal(
        Unauthorized(
            "this server needs an API key, in the header 'Authorization: Bearer KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )
    )
