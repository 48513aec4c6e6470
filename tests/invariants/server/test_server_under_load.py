"""A server under load: keys, limits, priorities, clients that leave, and how it ends."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai as openai_package
import pytest

from server.errors import ExitStatus
from tests.support.load import (
    LASTING,
    LONG,
    LONG_CHAT,
    PROMPT,
    SHORT,
    ask,
    error_of,
    eventually,
    health_until_gone,
    is_idle,
    metric,
    served,
    under_way,
)
from tests.support.servers import DEMO, RunningServer, running_server

pytestmark = pytest.mark.slow

KEYS = ("key-of-the-first-team", "key-of-the-second-team")
LONG_PASSES = 1 + 900 * 17
REQUEST_SECONDS = 5
STOP_SECONDS = 3
MAX_RUNNING = 3
MOST_QUEUED = 5
# Two thoughts of 3 tokens fit, a third does not.
MAX_RECORDED = 8


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with keys, limits that a few requests reach, and the most verbose HTTP log."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# two teams\n{KEYS[0]}\n{KEYS[1]}\n")
    options = [
        *("--api-key-file", str(keys), "--api-key", "key-of-the-command-line"),
        *(
            "--max-queued-requests",
            str(MOST_QUEUED),
            "--max-queued-passes",
            str(2 * LONG_PASSES + 500),
        ),
        *("--max-request-passes", str(10 * LONG_PASSES)),
        *("--request-timeout", str(REQUEST_SECONDS), "--max-num-seqs", str(MAX_RUNNING)),
        *("--shutdown-timeout", str(STOP_SECONDS), "--uvicorn-log-level", "debug"),
        *("--allow-return-thoughts", "--max-recorded-thought-tokens", str(MAX_RECORDED)),
        "--enable-request-id-headers",
        *("--scheduling-policy", "priority"),
        # Every token costs the same.
        *("--default-thought-threshold", "0"),
        *("--chat-template", "{% for message in messages %}{{ message.content }}\n{% endfor %}"),
    ]
    with running_server(DEMO, *LASTING, *options) as server:
        yield server


@pytest.fixture
def client(limited: RunningServer) -> Iterator[httpx.Client]:
    """A client with a key, of a server that is idle."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with httpx.Client(base_url=limited.url, headers=headers, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def test_without_a_key_only_probes_are_answered(limited: RunningServer) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEYS[0]}"}):
        answer = httpx.post(f"{limited.url}/v1/completions", json=SHORT, headers=headers)
        assert "Authorization: Bearer" in error_of(answer, 401)["message"]
    for path in ("/v1/chat/completions", "/tokenize", "/detokenize"):
        error_of(httpx.post(f"{limited.url}{path}", json={}), 401)
    for path in ("/v1/models", "/openapi.json", "/docs", "/nothing"):
        error_of(httpx.get(f"{limited.url}{path}"), 401)
    for path in ("/health", "/ping", "/version", "/load", "/metrics"):
        assert httpx.get(f"{limited.url}{path}").status_code == 200


@pytest.mark.parametrize("key", [*KEYS, "key-of-the-command-line"])
def test_every_key_is_accepted(limited: RunningServer, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{limited.url}/v1/models", headers=headers).status_code == 200


def test_other_sites_get_no_cors_headers(client: httpx.Client) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST"}
    for answer in (
        client.options("/v1/completions", headers=asked),
        client.get("/v1/models", headers=origin),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-allow-o")]


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_requests_get_429_with_retry_after(client: httpx.Client, stream: bool) -> None:
    counter = 'quietstar:requests_refused_total{reason="queued_requests"}'
    refused = metric(client, counter)
    with under_way(client, n=MOST_QUEUED, max_tokens=300):
        answer = ask(client, **SHORT, stream=stream)
    error = error_of(answer, 429)
    assert (
        f"{MOST_QUEUED} requests are being served or wait, this server takes {MOST_QUEUED}"
        in error["message"]
    )
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert metric(client, counter) == refused + 1
    eventually(lambda: is_idle(client))
    assert ask(client, **SHORT).status_code == 200


def test_work_that_waits_and_work_that_runs_is_told_in_passes(client: httpx.Client) -> None:
    waiting = {"prompt": PROMPT, "max_tokens": 50, "thought_budget": 4, "thought_threshold": 0}
    with (
        under_way(client, n=MAX_RUNNING, max_tokens=300),
        under_way(client, waiting, n=2),
    ):
        # A thought of 4 tokens makes 5 passes of a visible token.
        assert metric(client, "quietstar:queued_passes{") == 2 * 50 * 5
        assert 0 < metric(client, "quietstar:running_passes{") <= MAX_RUNNING * 300 * 17
    eventually(lambda: is_idle(client))
    assert metric(client, "quietstar:queued_passes{") == 0
    assert metric(client, "quietstar:running_passes{") == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_the_official_client_understands_refusals(
    client: httpx.Client, chat: bool, stream: bool
) -> None:
    def ask_with(key: str) -> None:
        url = f"{client.base_url}/v1"
        with openai_package.OpenAI(base_url=url, api_key=key, max_retries=0) as official:
            ask: Any = official.chat.completions if chat else official.completions
            text = LONG_CHAT["messages"] if chat else PROMPT
            field = "messages" if chat else "prompt"
            ask.create(model=str(DEMO), stream=stream, **{field: text})

    with pytest.raises(openai_package.AuthenticationError, match="needs an API key"):
        ask_with("wrong")
    with under_way(client, n=MOST_QUEUED, max_tokens=300):
        with pytest.raises(openai_package.RateLimitError, match="this server takes") as caught:
            ask_with(KEYS[0])
        assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 60


def test_requests_and_responses_carry_ids(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", json=SHORT, headers={"X-Request-Id": "mine"})
    assert answer.headers["X-Request-Id"] == "mine"
    assert answer.json()["id"] == "cmpl-mine"
    ids = [client.post("/v1/completions", json=SHORT).headers["X-Request-Id"] for _ in range(2)]
    assert ids[0] != ids[1]


def test_requests_with_priority_go_first(client: httpx.Client) -> None:
    """The batch is full. Two requests wait, and the one that came later goes first. The other is
    longer, so that the answers do not overtake each other on their way.
    """
    order: list[int] = []

    def wait(priority: int) -> None:
        length = {"max_tokens": 2 if priority == 1 else 400, "ignore_eos": True}
        ask(client, **SHORT | length, priority=priority).raise_for_status()
        order.append(priority)

    with ThreadPoolExecutor() as pool, ExitStack() as neighbours:
        neighbours.enter_context(under_way(client, n=MAX_RUNNING - 1, max_tokens=600))
        with under_way(client, max_tokens=600):
            waiting = [pool.submit(wait, 2)]
            eventually(lambda: served(client) == MAX_RUNNING + 1)
            waiting.append(pool.submit(wait, 1))
            eventually(lambda: served(client) == MAX_RUNNING + 2)
        for one in waiting:
            one.result()
    assert order == [1, 2]


def test_thinking_requests_fill_the_queue_sooner(client: httpx.Client) -> None:
    with under_way(client), under_way(client):
        error = error_of(ask(client, **LONG), 429)
    assert f"may take {2 * LONG_PASSES} passes" in error["message"]


def test_the_refusal_of_an_expensive_request_says_what_would_fit(client: httpx.Client) -> None:
    error = error_of(ask(client, **LONG, n=11), 400)
    assert error["param"] == "max_tokens"
    fits = int(error["message"].split("max_tokens of ")[1].split()[0])
    assert 11 * 17 * fits <= 10 * LONG_PASSES < 11 * 17 * (fits + 1) + 11


@pytest.mark.parametrize(
    ("request_", "stream"), [(LONG, False), (LONG, True), (LONG_CHAT, False), (LONG_CHAT, True)]
)
def test_the_time_of_a_request_is_limited(
    client: httpx.Client, request_: dict[str, Any], stream: bool
) -> None:
    """Ten long answers, three at a time: no machine finishes them in time."""
    answer = ask(client, **request_, n=10, stream=stream)
    if stream:
        *_, error, done = [line for line in answer.text.splitlines() if line]
        message = json.loads(error.removeprefix("data: "))["error"]["message"]
        assert done == "data: [DONE]"
    else:
        message = error_of(answer, 504)["message"]
        assert answer.headers["x-should-retry"] == "false"
    assert f"longer than the {REQUEST_SECONDS} s that this server allows" in message
    eventually(lambda: is_idle(client))


@pytest.mark.parametrize("request_", [LONG, LONG_CHAT], ids=["completion", "chat"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("queued", [False, True])
def test_the_request_of_a_client_that_leaves_is_aborted(
    client: httpx.Client,
    request_: dict[str, Any],
    stream: bool,
    queued: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the middle of a thought, or while it waits; it should take less than a second."""
    others = MAX_RUNNING if queued else 0
    with ExitStack() as neighbours:
        if others:
            neighbours.enter_context(under_way(client, n=others, max_tokens=600, thought_budget=4))
        with under_way(client, request_, stream=stream):
            pass
        seconds = eventually(lambda: served(client) == others)
    seconds_to_idle = eventually(lambda: is_idle(client))
    with capsys.disabled():
        print(f"\naborted after {seconds:.2f} s, all memory free {seconds_to_idle:.2f} s later")


def with_thoughts(client: httpx.Client, max_tokens: int) -> dict[str, Any]:
    """A choice with thoughts of 3 tokens."""
    fields = {"max_tokens": max_tokens, "thought_budget": 3, "return_thoughts": True}
    answer = ask(client, **SHORT | fields, ignore_eos=True)
    (choice,) = answer.raise_for_status().json()["choices"]
    found: dict[str, Any] = choice
    return found


def test_thoughts_without_room_are_missing_and_the_response_says_so(client: httpx.Client) -> None:
    choice = with_thoughts(client, max_tokens=5)
    first, second, *lost = choice["thoughts"]
    assert len(first["token_ids"]) == len(second["token_ids"]) == 3
    assert lost == [None] * 3
    assert choice["thoughts_truncated"]


def test_thoughts_that_were_sent_make_room(client: httpx.Client) -> None:
    for _ in range(3):
        assert None not in with_thoughts(client, max_tokens=2)["thoughts"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_thoughts_of_a_client_that_leaves_are_deleted(
    client: httpx.Client, stream: bool
) -> None:
    recorded = "quietstar:recorded_thought_tokens{"
    with under_way(client, thought_budget=3, return_thoughts=True, stream=stream):
        eventually(lambda: stream or metric(client, recorded) > 0)
    eventually(lambda: is_idle(client))
    eventually(lambda: None not in with_thoughts(client, max_tokens=2)["thoughts"])


def test_the_server_ends_with_requests_in_flight(
    client: httpx.Client, limited: RunningServer
) -> None:
    """Last: it ends the server. Requests that take longer than it waits get an error."""
    with ThreadPoolExecutor() as pool:
        whole = pool.submit(ask, client, **LONG)
        stream = pool.submit(ask, client, **LONG_CHAT, stream=True)
        short = pool.submit(ask, client, **SHORT | {"max_tokens": 100})
        eventually(lambda: served(client) >= 2)
        limited.process.terminate()
        health_until_gone(limited)
    assert limited.process.wait(60) == ExitStatus.STOPPED
    message = "the server is being stopped"
    assert message in error_of(whole.result(), 503)["message"]
    *_, error, done = [line for line in stream.result().text.splitlines() if line]
    assert message in json.loads(error.removeprefix("data: "))["error"]["message"]
    assert done == "data: [DONE]"
    assert short.result().status_code == 200
    assert "Traceback" not in limited.log
    for secret in (*KEYS, "key-of-the-command-line", "confidential"):
        assert secret not in limited.log
