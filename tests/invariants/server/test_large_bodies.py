"""Large bodies of many small faults are refused with bounded memory, and the server goes on."""

import json
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.hostile.requests import BODIES, CHATS, COMPLETIONS, JSON, with_field
from tests.support.load import error_of
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

MOST_BYTES = 1 << 30


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
