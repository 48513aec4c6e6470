"""API keys: where they come from, and what needs one."""

import hashlib
import hmac
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import StartError, Unauthorized
from server.refusals import refusal

# Several keys, apart by commas or spaces, and vLLM's name for one.
KEYS_VARIABLE, VLLM_KEY_VARIABLE = "QUIETSTAR_API_KEYS", "VLLM_API_KEY"
# For probes, scrapers and browsers that have no key yet. All other paths need one, also those that
# are added later.
OPEN_PATHS = frozenset({"/", "/health", "/ping", "/version", "/metrics"})
OPEN_FOLDERS = ("/page/",)


class ApiKeys:
    """The keys that open the server: none at all, and it is open."""

    def __init__(self, keys: Iterable[str]) -> None:
        # Digests: a key cannot be read off this process's memory dump or an error's locals, and
        # all are equally long to compare.
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header carries one of the keys, found in constant time."""
        scheme, _, key = (authorization or "").partition(" ")
        # Starlette decodes headers as latin-1, whatever they were.
        given = _digest(key.strip().encode("latin-1"))
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def read_keys(args: Namespace, environment: Mapping[str, str]) -> ApiKeys:
    """All keys of the command line, the key file and the environment.

    Raises `StartError` for a key file that cannot be read or is empty: whoever names one does not
    want an open server.
    """
    keys = set(args.api_key or ())
    if args.api_key_file is not None:
        keys |= _keys_in(args.api_key_file)
    keys |= set(environment.get(KEYS_VARIABLE, "").replace(",", " ").split())
    keys |= set(environment.get(VLLM_KEY_VARIABLE, "").split())
    return ApiKeys(key for key in keys if key)


def _keys_in(file: Path) -> set[str]:
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
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
        # Browsers ask with OPTIONS, without the key, whether they may send it.
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
