"""What one client does must not stop the others: each attack beside one that expects answers."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
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
GRAMMAR_SECONDS = 2
MOST_QUEUED = 32
# A stream of many chunks, each as large as it can be: more than the operating system keeps for a
# client that does not read, long before it ends.
LARGE = {"thought_budget": 0, "n": MOST_QUEUED, "logprobs": 20, "stream": True}
THINKING = {"thought_budget": 16, "thought_threshold": 0}


@pytest.fixture(scope="module")
def attacked() -> Iterator[RunningServer]:
    """A server whose queue one request fills."""
    options = (
        *("--request-timeout", str(REQUEST_SECONDS)),
        *("--grammar-timeout", str(GRAMMAR_SECONDS)),
    )
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
    assert len(error_of(answer, 400)["message"]) < 1000


def test_other_grammars_go_on_beside_those_that_are_too_complex(client: httpx.Client) -> None:
    """Both known ones and new ones."""
    choices = [{"choice": [f"yes{number}", f"no{number}"]} for number in range(5)]
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=client.base_url, timeout=60) as other:
        attacks = [
            pool.submit(ask, other, **SHORT, structured_outputs=SLOW_GRAMMAR) for _ in "1234"
        ]
        for choice in [*choices, *choices]:
            answer = ask(client, **SHORT | {"max_tokens": 20}, structured_outputs=choice)
            assert answer.json()["choices"][0]["text"] in choice["choice"]
        for attack in attacks:
            assert "too complex" in error_of(attack.result(), 400)["message"]


WORDS = {"structured_outputs": {"choice": ["yes", "no"]}}
CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "bad words": WORDS | {"bad_words": ["y", "n"]},
    "allowed tokens": WORDS | {"allowed_token_ids": [5]},
    "all allowed ones are bad": {"allowed_token_ids": [40], "bad_words": ["G"]},
    "only stop tokens": {"allowed_token_ids": [40], "stop_token_ids": [40], "min_tokens": 1},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_constraints_that_leave_no_token_are_refused(client: httpx.Client, name: str) -> None:
    for stream in (False, True):
        answer = ask(client, **SHORT | CONTRADICTIONS[name], stream=stream)
        assert "no token is left" in error_of(answer, 400)["message"]
