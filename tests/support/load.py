"""Requests that keep a server busy, and what it is doing meanwhile."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from tests.support.servers import RunningServer

PROMPT = "A quite confidential dial at 2:"
# About 17 times as many passes as tokens: these last.
LONG = {"prompt": PROMPT, "max_tokens": 900, "thought_budget": 16, "ignore_eos": True}
LONG_CHAT = {"messages": [{"role": "user", "content": PROMPT}], **LONG}
del LONG_CHAT["prompt"]
# For the servers of those: drafts would end requests soon that have been answered before.
LASTING = ("--speculative-thoughts", "off")
SHORT = {"prompt": PROMPT, "max_tokens": 2, "thought_budget": 0, "temperature": 0}


def eventually(holds: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until a condition holds; returns for how long, in seconds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() < start + seconds
        time.sleep(0.02)
    return time.monotonic() - start


def metric(client: httpx.Client, name: str) -> float:
    """The sum of a metric's values over its labels."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def served(client: httpx.Client) -> float:
    """The number of requests that run or wait in the engine."""
    return sum(metric(client, f"vllm:num_requests_{state}{{") for state in ("running", "waiting"))


def is_idle(client: httpx.Client) -> bool:
    """Whether no request is served, and the KV cache is empty."""
    return served(client) == 0 and metric(client, "vllm:kv_cache_usage_perc") == 0


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a refused request, which must have this status and OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == status
    return error


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    """Send a request: a chat if it has messages, else a completion."""
    return client.post(_path_for(body), json=body)


def _path_for(body: dict[str, Any]) -> str:
    return "/v1/chat/completions" if "messages" in body else "/v1/completions"


@contextmanager
def sent(
    client: httpx.Client, request: dict[str, Any] = LONG, **changes: Any
) -> Iterator[socket.socket]:
    """A request whose answer nobody has read yet, for the length of a `with` block; then its
    client leaves.

    Like all requests of `client` it has its API key.
    """
    body = json.dumps(request | changes).encode()
    head = [
        f"POST {_path_for(request)} HTTP/1.1",
        f"Host: {client.base_url.host}",
        f"Authorization: {client.headers.get('Authorization', 'none')}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    address = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(address) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        yield connection


@contextmanager
def under_way(
    client: httpx.Client, request: dict[str, Any] = LONG, **changes: Any
) -> Iterator[socket.socket]:
    """A request that the engine serves, else like `sent`. It must be one that lasts: this waits
    until the server's metrics show it."""
    before = served(client)
    with sent(client, request, **changes) as connection:
        eventually(lambda: served(client) == before + changes.get("n", 1))
        yield connection


def health_until_gone(server: RunningServer) -> set[int]:
    """The statuses of /health until the server does not answer any more."""
    statuses = set()
    while True:
        try:
            statuses.add(httpx.get(f"{server.url}/health").status_code)
        except httpx.TransportError:
            return statuses
        time.sleep(0.02)


def engine_of(server: RunningServer) -> psutil.Process:
    """The process of a server's engine."""
    children = psutil.Process(server.process.pid).children()
    (engine,) = [child for child in children if "EngineCore" in child.cmdline()[0]]
    return engine
