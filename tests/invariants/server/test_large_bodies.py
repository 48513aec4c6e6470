"""Large bodies of many small faults are refused with bounded memory, and the server goes on."""

import json
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.load import error_of
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
# Just under what a body may have, and far above it.
MANY, TOO_MANY = 500_000, 3_000_000
# Names count as text, of which there is less.
MANY_NAMES = 100_000
MOST_BYTES = 1 << 30


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


def peak_bytes(server: RunningServer) -> int:
    """The largest memory of the server's own process so far."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


@pytest.mark.skipif(not psutil.LINUX, reason="reads /proc")
@pytest.mark.parametrize("name", BODIES)
def test_many_faults_cost_little(demo_server: RunningServer, name: str) -> None:
    path, field, value, status = BODIES[name]
    before = peak_bytes(demo_server)
    with httpx.Client(base_url=demo_server.url, timeout=120) as client:
        answer = client.post(path, content=with_field(path, field, value), headers=JSON)
        message = error_of(answer, status)["message"]
        assert client.get("/health").status_code == 200
    assert len(message) < 1000
    assert peak_bytes(demo_server) - before < MOST_BYTES


def test_unknown_fields_are_bounded(demo_server: RunningServer) -> None:
    unknown: dict[str, Any] = {f"field_{number}": 1 for number in range(50_000)}
    for path, body, where in (
        (COMPLETIONS, {"prompt": "a", **unknown}, "are unknown"),
        (CHATS, {"messages": [{"role": "user", "content": "a"}], **unknown}, "are unknown"),
        (COMPLETIONS, {"prompt": "a", "vllm_xargs": unknown}, "in vllm_xargs are unknown"),
    ):
        answer = httpx.post(f"{demo_server.url}{path}", content=json.dumps(body), headers=JSON)
        assert f"50000 fields {where}, at most 100" in error_of(answer, 400)["message"]
    query = "&".join(f"f{number}=1" for number in range(5000))
    answer = httpx.post(f"{demo_server.url}{COMPLETIONS}?{query}", json={"prompt": "a"})
    assert "fields in query are unknown" in error_of(answer, 400)["message"]
