"""Requests that are meant to stop a server, and what each does to others beside it."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from tests.support.load import PROMPT

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
# Just under what a body may have, and far above it.
MANY, TOO_MANY = 500_000, 3_000_000
# Names count as text, of which there is less.
MANY_NAMES = 100_000


def with_field(path: str, field: str, value: str) -> bytes:
    good = {COMPLETIONS: '"prompt": "a"', CHATS: '"messages": [{"role": "user", "content": "a"}]'}
    start = f"{good[path]}, " if path in good and field not in ("prompt", "messages") else ""
    return f'{{{start}"{field}": {value}}}'.encode()


def listed(item: str, number: int = MANY) -> str:
    return "[" + ",".join([item] * number) + "]"


def mapped(value: str, number: int = MANY_NAMES) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key in range(number)) + "}"


# Name: path, field, its value as text, status.
BODIES: dict[str, tuple[str, str, str, int]] = {
    "messages beyond the bound": (CHATS, "messages", listed("{}", TOO_MANY), 413),
    "messages": (CHATS, "messages", listed("{}"), 400),
    "numbers as messages": (CHATS, "messages", listed("1"), 400),
    "tools": (CHATS, "tools", listed("{}"), 400),
    "prompts of two types": (COMPLETIONS, "prompt", listed('1,"a"', MANY // 2), 400),
    "prompts as maps": (COMPLETIONS, "prompt", listed("{}"), 400),
    "prompts as lists of lists": (COMPLETIONS, "prompt", listed('["a"]', MANY // 2), 400),
    "a token id too many": (COMPLETIONS, "prompt", listed("1"), 400),
    "stop": (COMPLETIONS, "stop", listed("1"), 400),
    "allowed_token_ids": (COMPLETIONS, "allowed_token_ids", listed('"a"'), 400),
    "logit_bias": (COMPLETIONS, "logit_bias", mapped('"x"'), 400),
    "logit_bias beyond the bound": (COMPLETIONS, "logit_bias", mapped("1", TOO_MANY), 413),
    "vllm_xargs": (COMPLETIONS, "vllm_xargs", mapped("1"), 400),
    "choices": (COMPLETIONS, "structured_outputs", '{"choice":' + listed("1") + "}", 400),
    "tokens": ("/detokenize", "tokens", listed('"a"'), 400),
    "tokens beyond the bound": ("/detokenize", "tokens", listed("1", TOO_MANY), 413),
    "messages to tokenize": ("/tokenize", "messages", listed("{}"), 400),
}


def refer_to(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


MANY_PATTERNS = {
    f"p{number}": {"type": "string", "pattern": f"^[a-z]{{1,40}}[0-9]*{number}$"}
    for number in range(4000)
}
# Compiles for a minute or so.
SLOW_GRAMMAR = {"json": {"type": "object", "properties": MANY_PATTERNS}}
REPETITIONS = "(" * 3000 + "a" + "*)" * 3000
# Grammars that cannot be compiled within a reasonable time or size, or that allow nothing.
GRAMMARS: dict[str, dict[str, Any]] = {
    "patterns of thousands of properties": SLOW_GRAMMAR,
    "many choices": {"choice": [f"choice number {number * 7919}" for number in range(30_000)]},
    "repetitions of repetitions": {"regex": REPETITIONS},
    "a schema that is itself": {"json": {"$ref": "#"}},
    "schemas that are each other": {
        "json": {**refer_to("a"), "$defs": {"a": refer_to("b"), "b": refer_to("a")}}
    },
    "what the compiler would ignore": {"json": {"type": "integer", "multipleOf": 3}},
    "a rule without an end": {"grammar": "root ::= root"},
    "an unknown rule": {"grammar": "root ::= nothing"},
}
# Somewhat less text than a body may have, and more.
LONG_TEXT, TOO_LONG = "A quite confidential dial. " * 9600, "a" * 2_000_000
MANY_FIELDS = {f"field_{number}": 1 for number in range(50_000)}


class HostileRequest(NamedTuple):
    """Where it is sent, and what."""

    path: str
    body: bytes


def hostile_requests() -> dict[str, HostileRequest]:
    """All of them, by name; every one is refused, but for two that are only slow to tokenize."""

    def completion(**fields: Any) -> HostileRequest:
        return HostileRequest(COMPLETIONS, json.dumps({"prompt": PROMPT, **fields}).encode())

    bodies = {
        name: HostileRequest(path, with_field(path, field, value))
        for name, (path, field, value, _) in BODIES.items()
    }
    grammars = {
        name: completion(structured_outputs=grammar, max_tokens=2)
        for name, grammar in GRAMMARS.items()
    }
    tokenized = json.dumps({"prompt": LONG_TEXT, "return_token_strs": True}).encode()
    return {
        **bodies,
        **grammars,
        "unknown fields": completion(**MANY_FIELDS),
        "unknown fields in vllm_xargs": completion(vllm_xargs=MANY_FIELDS),
        "a long request_id": completion(request_id=TOO_LONG * 5),
        "a long name of a field": completion(**{TOO_LONG: 1}),
        "a text of 2 MB": HostileRequest("/tokenize", json.dumps({"prompt": TOO_LONG}).encode()),
        "a prompt of 2 MB, cut": completion(prompt=TOO_LONG, truncate_prompt_tokens=5),
        "tokenize": HostileRequest("/tokenize", tokenized),
        "cut": completion(prompt=LONG_TEXT, truncate_prompt_tokens=5, max_tokens=1),
        "many prompts": completion(prompt=[LONG_TEXT[:4000]] * 64, max_tokens=1),
        "many bad words": completion(bad_words=["a" * 8] * 4000),
        "lists in each other": HostileRequest(
            COMPLETIONS, with_field(COMPLETIONS, "stop", "[" * 200_000)
        ),
        "a body that nobody wants": HostileRequest("/health", b"a" * 15_000_000),
    }


class Harm(NamedTuple):
    """What a request has done: times in seconds."""

    name: str
    status: int
    seconds: float
    stream_gap: float
    """Longest time between two chunks of a stream beside it."""
    longest_probe: float
    """Longest time until an answer of /health."""

    def __str__(self) -> str:
        return (
            f"{self.name:38} {self.status} {self.seconds:6.2f} s, stream {self.stream_gap:5.2f} s, "
            f"/health {self.longest_probe:5.2f} s"
        )


def harm_done(url: str, requests: Mapping[str, HostileRequest]) -> list[Harm]:
    """Send each request once, beside a stream and a client of /health."""
    rows = []
    with _neighbours(url) as (chunks, probes), httpx.Client(base_url=url, timeout=300) as client:
        for name, (path, body) in requests.items():
            chunks.begin()
            probes.begin()
            start = time.monotonic()
            method = "GET" if path == "/health" else "POST"
            try:
                status = client.request(method, path, content=body, headers=JSON).status_code
            except httpx.TransportError:
                # The server has answered and closed the connection, without receiving the body.
                status = 413
            seconds = time.monotonic() - start
            rows.append(Harm(name, status, seconds, chunks.longest(), probes.longest()))
    return rows


class _Intervals:
    """The longest time between two events since `begin`, the time until now included."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._longest = 0.0

    def begin(self) -> None:
        self._longest = 0.0

    def event(self) -> None:
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now

    def longest(self) -> float:
        return max(self._longest, time.monotonic() - self._last)


@contextmanager
def _neighbours(url: str) -> Iterator[tuple[_Intervals, _Intervals]]:
    """A client that reads streams without end, and one that asks for the server's health."""
    chunks, probes, stop = _Intervals(), _Intervals(), threading.Event()
    stream = {"prompt": PROMPT, "max_tokens": 900, "thought_budget": 0, "ignore_eos": True}

    def read_streams() -> None:
        with httpx.Client(base_url=url, timeout=300) as client:
            while not stop.is_set():
                with client.stream("POST", COMPLETIONS, json=stream | {"stream": True}) as response:
                    for line in response.iter_lines():
                        if line:
                            chunks.event()
                        if stop.is_set():
                            break

    def probe() -> None:
        with httpx.Client(base_url=url, timeout=300) as client:
            while not stop.is_set():
                client.get("/health").raise_for_status()
                probes.event()

    threads = [threading.Thread(target=read_streams), threading.Thread(target=probe)]
    for thread in threads:
        thread.start()
    try:
        yield chunks, probes
    finally:
        stop.set()
        for thread in threads:
            thread.join()
