"""The soak command: against a real server all is well, and against a bad one it says so."""

import json
import subprocess
import sys
from itertools import islice
from typing import Any

import httpx
import pytest

from server.soak.drive import Driver
from server.soak.tally import ACCEPTED, DIFFERENT, FAILED, LEAKED, Tally
from server.soak.traffic import Traffic
from tests.support.servers import ROOT, RunningServer

SOAK = (sys.executable, "-m", "server.soak")


def soak(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*SOAK, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_all_is_well(server: RunningServer) -> None:
    done = soak("--url", server.url, "--minutes", "0.05", "--clients", "4", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    report = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    for zero in ("failed", "bad requests accepted", "thoughts shown to who did not ask"):
        assert report[zero] == "0"
    assert report["of these, other than alone"] == "0"
    for name in ("requests sent", "answered", "answers asked for again", "thought tokens"):
        assert int(report[name]) > 0
    assert int(report["memory at the end, MiB"]) > 0
    assert "sent," in done.stderr  # progress


def test_nobody_there() -> None:
    done = soak("--url", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def traffic() -> Traffic:
    return Traffic("model", max_budget=8, shows_thoughts=True, seed=3)


def test_what_is_sent_depends_on_the_seed_only() -> None:
    first, again = traffic(), traffic()
    assert first.known == again.known
    assert [*islice(first.of_client(1), 50)] == [*islice(again.of_client(1), 50)]
    assert [*islice(first.of_client(1), 50)] != [*islice(first.of_client(2), 50)]
    assert len({doing.act for doing in islice(first.of_client(1), 500)}) == 6


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("none", set()),
        ("breaks", {FAILED}),
        ("accepts", {ACCEPTED}),
        ("leaks", {LEAKED}),
        ("differs", {DIFFERENT}),
        ("silent", {FAILED}),
    ],
)
async def test_a_bad_server_is_found_out(fault: str, kinds: set[str]) -> None:
    """A server that only pretends, with one fault at a time."""
    answered = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal answered
        try:
            body = json.loads(request.content)
            is_bad = not is_good(body)
        except (ValueError, TypeError, RecursionError):
            is_bad = True
        answered += 1
        if is_bad and fault != "accepts":
            return httpx.Response(400, json={"error": {"message": "bad"}})
        if fault == "breaks" and answered % 50 == 0:
            return httpx.Response(500, text="broken")
        if is_bad:
            return httpx.Response(200, json=completion({}))
        content = completion(body)
        if fault == "leaks":
            content["choices"][0]["thoughts"] = []
        if fault == "differs" and answered > 100:
            content["choices"][0]["text"] = "another"
        if body.get("stream"):
            end = "" if fault == "silent" else "data: [DONE]\n\n"
            return httpx.Response(200, text=f"data: {json.dumps(content)}\n\n{end}")
        return httpx.Response(200, json=content)

    tally = Tally()
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        driver = Driver(http, traffic(), tally)
        await driver.ask_alone()
        await driver.run(clients=3, seconds=0.5, progress=lambda _: None)
    assert tally.answered > 50
    assert set(tally.faults) == kinds
    assert bool(tally.wrongs(10, tolerate_differences=False)) == bool(kinds)
    assert bool(tally.wrongs(10, tolerate_differences=True)) == bool(kinds - {DIFFERENT})


def test_growing_memory_is_wrong() -> None:
    tally = Tally(answered=1, memory_at_start=100, memory_at_end=150)
    assert not tally.wrongs(60, False)
    assert tally.wrongs(40, False) == ["memory grew by 50 MiB, 40 are allowed"]


def is_good(body: dict[str, Any]) -> bool:
    """Whether a request is one that the soak command believes to be good."""
    known = traffic().known[0].keys() | {"n", "stream", "return_thoughts", "thinking_token_budget"}
    values = (body["thought_budget"], body["temperature"], body["max_tokens"], body.get("n", 1))
    return (
        body.keys() <= known
        and all(isinstance(value, int) for value in values)
        and 0 <= values[0] <= 8
        and values[1] >= 0
        and values[2] > 0
        and values[3] > 0
        and isinstance(body["prompt"], str)
        and bool(body["prompt"])
    )


def completion(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": f"{body.get('prompt')}"}],
        "usage": {
            "completion_tokens": 1,
            "completion_tokens_details": {"reasoning_tokens": body.get("thought_budget", 0)},
        },
    }
