"""Which names of this machine requests may use, where only this machine can reach the server."""

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.error_responses import refusal
from server.errors import WrongHost


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return _is_local(host)


class HostMiddleware:
    """Answers 421 to requests for a host of another name.

    A page of another site can have its own name resolved to 127.0.0.1, and be of the same origin as
    this server then (DNS rebinding). An address cannot be: a page that has it came from there.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        """`allowed`: further names."""
        self._app = app
        self._allowed = {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allows(Headers(scope=scope).get("host")):
            error = WrongHost(
                "this server, which has no API keys, answers requests for localhost and for "
                "addresses only; --allowed-hosts names others"
            )
            await refusal(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _allows(self, host: str | None) -> bool:
        if not host:
            return True  # no browser leaves it out
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.strip("[]").rstrip(".").lower()
        return _is_local(name) or name in self._allowed or _is_address(name)


def _is_local(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
