"""What one client does must not stop the others: each attack beside one that expects answers."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.hostile.harm import harm_done
from tests.support.hostile.requests import (
    GRAMMARS,
    LONG_TEXT,
    ONLY_SLOW,
    SLOW_GRAMMAR,
    TOO_LONG,
    hostile_requests,
)
from tests.support.load import (
    LASTING,
    SHORT,
    ask,
    error_of,
    eventually,
    is_idle,
    metric,
    sent,
    served,
    under_way,
)
from tests.support.servers import DEMO, RunningServer, running_server

pytestmark = pytest.mark.slow

REQUEST_SECONDS = 20
GRAMMAR_SECONDS = 2
# A request that stops the others does it for as long as its body is large: minutes.
LONGEST_HARM = 20.0
MOST_QUEUED = 32
# A stream of many chunks, each as large as it can be: more than the operating system keeps for a
# client that does not read, long before it ends.
LARGE: dict[str, Any] = {"thought_budget": 0, "n": MOST_QUEUED, "logprobs": 20, "stream": True}
THINKING = {"thought_budget": 16, "thought_threshold": 0}


@pytest.fixture(scope="module")
def attacked() -> Iterator[RunningServer]:
    """A server whose queue one request fills."""
    options = (
        *("--request-timeout", str(REQUEST_SECONDS)),
        *("--grammar-timeout", str(GRAMMAR_SECONDS)),
    )
    with running_server(
        DEMO, *LASTING, *options, "--max-queued-requests", str(MOST_QUEUED)
    ) as server:
        yield server


@pytest.fixture
def client(attacked: RunningServer) -> Iterator[httpx.Client]:
    """A client of a server that is idle."""
    with httpx.Client(base_url=attacked.url, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def cut_off(client: httpx.Client) -> float:
    return metric(client, 'quietstar:requests_refused_total{reason="request_timeout"}')


def generated(client: httpx.Client) -> float:
    """The number of tokens that the server has generated since it started."""
    return metric(client, "vllm:generation_tokens_total")


def test_the_place_of_a_stream_that_nobody_reads_is_free_when_the_engine_is_done(
    client: httpx.Client,
) -> None:
    tokens, before = generated(client) + 250 * MOST_QUEUED, cut_off(client)
    with sent(client, **LARGE, max_tokens=250) as connection:
        eventually(lambda: generated(client) == tokens and served(client) == 0)
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
        error_of(ask(client, **SHORT), 429)
        eventually(lambda: is_idle(client), seconds=3 * REQUEST_SECONDS)
        assert cut_off(client) == before + 1
        assert ask(client, **SHORT).status_code == 200


def gaps(client: httpx.Client, stop: threading.Event) -> float:
    """The longest time between two answers of a server about its health."""
    longest, last = 0.0, time.monotonic()
    while not stop.is_set():
        client.get("/health").raise_for_status()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def test_no_hostile_request_stops_the_others(
    client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside each a stream goes on, and probes are answered. How quickly depends on the machine;
    docs/operations.md says what was measured."""
    requests = hostile_requests()
    rows = harm_done(str(client.base_url), requests)
    with capsys.disabled():
        print("", *rows, sep="\n")
    assert [row.name for row in rows] == list(requests)
    for row in rows:
        assert 400 <= row.status < 500 or row.name in ONLY_SLOW, row
        assert max(row.stream_gap, row.longest_probe) < LONGEST_HARM, row


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


# What the first token may be is not excluded, what the second may be is.
LATER: dict[str, dict[str, Any]] = {
    "bad words": {"structured_outputs": {"choice": ["Gq"]}, "bad_words": ["q"]},
    "allowed tokens": {"structured_outputs": {"regex": "G[0-9]"}, "allowed_token_ids": [40]},
    "stop tokens": {
        "structured_outputs": {"choice": ["HG"]},
        "stop_token_ids": [40],
        "allowed_token_ids": [40, 41],
        "min_tokens": 2,
    },
}


@pytest.mark.parametrize("budget", [0, 2])
@pytest.mark.parametrize("name", LATER)
def test_constraints_that_leave_no_later_token_end_the_request(
    client: httpx.Client, name: str, budget: int
) -> None:
    fields = SHORT | LATER[name] | {"thought_budget": budget}
    error = error_of(ask(client, **fields), 400)
    assert error["message"].startswith("no token is left to sample: the grammar allows none")
    *_, event, done = [
        line for line in ask(client, **fields, stream=True).text.splitlines() if line
    ]
    assert json.loads(event.removeprefix("data: "))["error"] == error
    assert done == "data: [DONE]"


TOKENIZED: dict[str, tuple[str, dict[str, Any]]] = {
    "tokenize": ("/tokenize", {"prompt": LONG_TEXT, "return_token_strs": True}),
    "cut": ("/v1/completions", {"prompt": LONG_TEXT, "truncate_prompt_tokens": 5, "max_tokens": 1}),
    "prompts": ("/v1/completions", {"prompt": [LONG_TEXT[:4000]] * 64, "max_tokens": 1}),
}


@pytest.mark.parametrize("name", TOKENIZED)
def test_long_texts_leave_the_tokenizer_to_others(
    client: httpx.Client, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, body = TOKENIZED[name]
    stop = threading.Event()
    with (
        ThreadPoolExecutor() as pool,
        httpx.Client(base_url=client.base_url, timeout=60) as other,
        httpx.Client(base_url=client.base_url) as prober,
    ):
        probing = pool.submit(gaps, prober, stop)
        long = [pool.submit(other.post, path, json=body) for _ in "1234"]
        longest = 0.0
        while not all(it.done() for it in long):
            start = time.monotonic()
            ask(client, **SHORT).raise_for_status()
            longest = max(longest, time.monotonic() - start)
        stop.set()
        longest_probe = probing.result()
    statuses = [it.result().status_code for it in long]
    # The texts are tokenized; a prompt that is not cut is too long.
    assert set(statuses) == {400 if name == "prompts" else 200}
    with capsys.disabled():
        print(f"\n{name} {statuses}: {longest:.2f} s, /health at most {longest_probe:.2f} s")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/tokenize", {"prompt": TOO_LONG}),
        ("/v1/completions", {"prompt": TOO_LONG, "truncate_prompt_tokens": 5}),
        ("/v1/completions", {"prompt": [TOO_LONG[:2000]] * 1000}),
        ("/v1/completions", {"prompt": "a", "request_id": TOO_LONG}),
        ("/v1/completions", {"prompt": "a", TOO_LONG: 1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TOO_LONG}]}),
    ],
)
def test_more_text_than_any_context_holds_is_refused(
    client: httpx.Client, path: str, field: dict[str, Any]
) -> None:
    assert "1048576 bytes" in error_of(client.post(path, json=field), 413)["message"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/tokenize", {"prompt": LONG_TEXT * 2}),
        ("/tokenize", {"messages": [{"role": "user", "content": LONG_TEXT * 2}]}),
        ("/v1/completions", {"prompt": LONG_TEXT * 2, "truncate_prompt_tokens": 5}),
        ("/v1/completions", {"prompt": ["a" * 300] * 1000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG_TEXT * 2}]}),
        ("/v1/completions", {"prompt": "a", "bad_words": [LONG_TEXT]}),
        ("/v1/completions", {"prompt": "a", "stop": [LONG_TEXT]}),
    ],
)
def test_more_text_than_the_tokenizer_should_see_is_refused(
    client: httpx.Client, path: str, field: dict[str, Any]
) -> None:
    assert "characters in all" in error_of(client.post(path, json=field), 400)["message"]


def test_request_ids_are_bounded(client: httpx.Client) -> None:
    for stream in (False, True):
        error = error_of(ask(client, **SHORT, request_id="a" * 257, stream=stream), 400)
        assert error["param"] == "request_id"
        headers = {"X-Request-Id": "a" * 257}
        answer = client.post("/v1/completions", json=SHORT | {"stream": stream}, headers=headers)
        assert error_of(answer, 400)["param"] == "X-Request-Id"
    assert ask(client, **SHORT, request_id="a" * 256).status_code == 200


@pytest.mark.parametrize(
    "head", ["GET /health", "POST /ping", "POST /nowhere", "PUT /tokenize", "GET /"]
)
@pytest.mark.parametrize("framing", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
def test_a_body_that_is_not_wanted_is_not_received(
    client: httpx.Client, head: str, framing: str
) -> None:
    """Nor kept in memory: the connection is closed, after the answer."""
    address = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(f"{head} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
        sent = 0
        chunk = b"10000\r\n" + b"a" * (1 << 16) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while sent < 100_000_000:
                connection.sendall(chunk)
                sent += len(chunk)
    # What the operating systems' buffers hold.
    assert sent < 20_000_000


def test_short_bodies_that_are_not_wanted_keep_their_connection(client: httpx.Client) -> None:
    for _ in range(3):
        answer = client.request("GET", "/health", content=b"a" * 1000)
        assert answer.status_code == 200
        assert "connection" not in answer.headers
