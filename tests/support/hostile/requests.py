"""Requests that are meant to stop a server."""

import json
from typing import Any, NamedTuple

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


# Those that are answered, after a while; the others are refused.
ONLY_SLOW = ("tokenize", "cut", "many bad words", "a body that nobody wants")


def hostile_requests() -> dict[str, HostileRequest]:
    """All of them, by name."""

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
