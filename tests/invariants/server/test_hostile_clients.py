"""What one client does must not stop the others: each attack beside a client that expects answers."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.load import (
    SHORT,
    ask,
    error_of,
    eventually,
    is_idle,
    metric,
    served,
    under_way,
)
from tests.support.servers import DEMO, RunningServer, running_server

pytestmark = pytest.mark.slow

REQUEST_SECONDS = 20
MOST_QUEUED = 32
# A stream of many chunks, each as large as it can be: more than the operating system keeps for a
# client that does not read, long before it ends.
LARGE = {"thought_budget": 0, "n": MOST_QUEUED, "logprobs": 20, "stream": True}
THINKING = {"thought_budget": 16, "thought_threshold": 0}


@pytest.fixture(scope="module")
def attacked() -> Iterator[RunningServer]:
    """A server whose queue one request fills."""
    options = ("--request-timeout", str(REQUEST_SECONDS))
    with running_server(DEMO, *options, "--max-queued-requests", str(MOST_QUEUED)) as server:
        yield server


@pytest.fixture
def client(attacked: RunningServer) -> Iterator[httpx.Client]:
    """A client of a server that is idle."""
    with httpx.Client(base_url=attacked.url, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def cut_off(client: httpx.Client) -> float:
    return metric(client, 'quietstar:requests_refused_total{reason="request_timeout"}')


def test_the_place_of_a_stream_that_nobody_reads_is_free_when_the_engine_is_done(
    client: httpx.Client,
) -> None:
    before = cut_off(client)
    with under_way(client, **LARGE, max_tokens=250) as connection:
        error_of(ask(client, **SHORT), 429)
        eventually(lambda: served(client) == 0)
        answer = ask(client, **SHORT)
        # Cut off when its time is up, in the middle: what the server has not sent never comes.
        eventually(lambda: cut_off(client) == before + 1)
        connection.settimeout(3 * REQUEST_SECONDS)
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert answer.status_code == 200
    assert b"[DONE]" not in received


def test_a_stream_that_nobody_reads_is_aborted_when_its_time_is_up(client: httpx.Client) -> None:
    before = cut_off(client)
    with under_way(client, **LARGE | THINKING, max_tokens=900):
        eventually(lambda: is_idle(client), seconds=3 * REQUEST_SECONDS)
        assert cut_off(client) == before + 1
        assert ask(client, **SHORT).status_code == 200


def nested(depth: int) -> dict[str, Any]:
    """A schema of a few hundred bytes that takes the longer to compile the deeper it is."""
    schema: dict[str, Any] = {"type": "string"}
    for level in range(depth):
        names = (f"a{level}", f"b{level}")
        schema = {
            "oneOf": [
                {"type": "object", "properties": dict.fromkeys(names, schema)},
                {"type": "array", "items": schema},
            ]
        }
    return schema


# Grammars that cannot be compiled within a reasonable time or size, or not at all.
GRAMMARS: dict[str, dict[str, Any]] = {
    "alternatives in alternatives": {"json": nested(9)},
    "many choices": {"choice": [f"choice number {number * 7919}" for number in range(30_000)]},
    "half as many": {"choice": [f"choice {number * 7919}" for number in range(12_000)]},
    "repetitions of repetitions": {"regex": "((a{1,500}|b{1,300}){1,500}c){1,300}"},
    "a schema that is itself": {"json": {"$ref": "#"}},
    "schemas that are each other": {
        "json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    },
    "what the compiler would ignore": {"json": {"type": "integer", "multipleOf": 3}},
    "a rule without an end": {"grammar": "root ::= root"},
    "an unknown rule": {"grammar": "root ::= nothing"},
}


def gaps(client: httpx.Client, stop: threading.Event) -> float:
    """The longest time between two answers of a server about its health."""
    longest, last = 0.0, time.monotonic()
    while not stop.is_set():
        client.get("/health").raise_for_status()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", GRAMMARS)
def test_a_grammar_beyond_the_limits_is_refused_and_harms_no_one(
    client: httpx.Client, name: str, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=client.base_url) as prober:
        probing = pool.submit(gaps, prober, stop)
        try:
            start = time.monotonic()
            answer = ask(client, **SHORT, structured_outputs=GRAMMARS[name], stream=stream)
            seconds = time.monotonic() - start
        finally:
            stop.set()
        longest = probing.result()
    with capsys.disabled():
        print(f"\n{name}: {seconds:.2f} s, /health at most {longest:.2f} s; {answer.text[:150]}")
    assert answer.status_code == 400
    assert len(error_of(answer, 400)["message"]) < 1000


def test_other_grammars_go_on_beside_one_that_is_too_complex(client: httpx.Client) -> None:
    """Both a known one and new ones."""
    choices = [{"choice": [f"yes{number}", f"no{number}"]} for number in range(5)]
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=client.base_url, timeout=60) as other:
        too_complex = pool.submit(ask, other, **SHORT, structured_outputs={"json": nested(9)})
        for choice in [*choices, *choices]:
            answer = ask(client, **SHORT | {"max_tokens": 20}, structured_outputs=choice)
            assert answer.json()["choices"][0]["text"] in choice["choice"]
        assert not too_complex.done()
    assert "too complex" in error_of(too_complex.result(), 400)["message"]


def test_the_grammar_of_a_client_that_leaves_is_not_compiled_on(
    attacked: RunningServer, client: httpx.Client
) -> None:
    server = psutil.Process(attacked.process.pid)

    def compiling() -> list[psutil.Process]:
        return [
            it for child in server.children() for it in child.children() if "server" in it.cmdline()
        ]

    with pytest.raises(httpx.ReadTimeout):
        fields = SHORT | {"structured_outputs": {"json": nested(9)}}
        client.post("/v1/completions", json=fields, timeout=2)
    eventually(lambda: not compiling(), seconds=2)
