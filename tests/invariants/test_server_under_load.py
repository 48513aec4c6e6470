"""A server under load and at its end: limits, keys, clients that leave, signals, a dead engine."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import openai as openai_package
import psutil  # type: ignore[import-untyped]
import pytest

from server.errors import ExitStatus
from tests.support.servers import DEMO, RunningServer, running_server

KEYS = ("key-of-the-first-team", "key-of-the-second-team")
PROMPT = "A quite confidential dial at 2:"
# About 17 times as many passes as tokens: these last.
LONG = {"prompt": PROMPT, "max_tokens": 900, "thought_budget": 16, "ignore_eos": True}
LONG_CHAT = {"messages": [{"role": "user", "content": PROMPT}], **LONG}
del LONG_CHAT["prompt"]
SHORT = {"prompt": PROMPT, "max_tokens": 2, "thought_budget": 0, "temperature": 0}
LONG_PASSES = 1 + 900 * 17
REQUEST_SECONDS = 8
STOP_SECONDS = 5
MAX_RUNNING = 3
MOST_QUEUED = 5


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with keys, and limits that a few requests reach. It logs at its most verbose."""
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
        *("--allow-return-thoughts", "--enable-request-id-headers"),
        *("--scheduling-policy", "priority"),
        *("--chat-template", "{% for message in messages %}{{ message.content }}\n{% endfor %}"),
    ]
    with running_server(DEMO, *options) as server:
        yield server


@pytest.fixture
def client(limited: RunningServer) -> Iterator[httpx.Client]:
    """A client with a key; it finds the server idle."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with httpx.Client(base_url=limited.url, headers=headers, timeout=120) as client:
        eventually(lambda: is_idle(client))
        yield client


def eventually(holds: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until something holds; returns how long it took."""
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
    """Requests that run or wait in the engine."""
    return sum(metric(client, f"vllm:num_requests_{state}{{") for state in ("running", "waiting"))


def is_idle(client: httpx.Client) -> bool:
    return served(client) == 0 and metric(client, "vllm:kv_cache_usage_perc") == 0


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post(path_for(body), json=body)


def path_for(body: dict[str, Any]) -> str:
    return "/v1/chat/completions" if "messages" in body else "/v1/completions"


@contextmanager
def under_way(
    client: httpx.Client, request: dict[str, Any] = LONG, **changes: Any
) -> Iterator[socket.socket]:
    """A request that the engine has, for the length of a `with` block; then its client leaves."""
    before = served(client)
    body = json.dumps(request | changes).encode()
    head = [
        f"POST {path_for(request)} HTTP/1.1",
        f"Host: {client.base_url.host}",
        f"Authorization: Bearer {KEYS[1]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    address = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(address) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        eventually(lambda: served(client) == before + changes.get("n", 1))
        yield connection


def test_without_a_key_only_probes_are_answered(limited: RunningServer) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEYS[0]}"}):
        answer = httpx.post(f"{limited.url}/v1/completions", json=SHORT, headers=headers)
        assert "Authorization: Bearer" in error_of(answer, 401)["message"]
    for path in ("/v1/chat/completions", "/tokenize", "/detokenize"):
        error_of(httpx.post(f"{limited.url}{path}", json={}), 401)
    for path in ("/v1/models", "/openapi.json", "/docs", "/nothing"):
        error_of(httpx.get(f"{limited.url}{path}"), 401)
    for path in ("/health", "/ping", "/version", "/metrics"):
        assert httpx.get(f"{limited.url}{path}").status_code == 200


@pytest.mark.parametrize("key", [*KEYS, "key-of-the-command-line"])
def test_every_key_opens_the_server(limited: RunningServer, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{limited.url}/v1/models", headers=headers).status_code == 200


def test_other_sites_may_not_ask(client: httpx.Client) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST"}
    for answer in (
        client.options("/v1/completions", headers=asked),
        client.get("/v1/models", headers=origin),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-allow-o")]


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_requests_come_back_later(client: httpx.Client, stream: bool) -> None:
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


def test_who_has_priority_goes_first(client: httpx.Client) -> None:
    """All rows are taken. Two requests wait, and the one that came later goes first."""
    order: list[int] = []

    def wait(priority: int) -> None:
        ask(client, **SHORT, priority=priority).raise_for_status()
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


def test_too_expensive_a_request_learns_what_would_fit(client: httpx.Client) -> None:
    error = error_of(ask(client, **LONG, n=11), 400)
    assert error["param"] == "max_tokens"
    fits = int(error["message"].split("max_tokens of ")[1].split()[0])
    assert 11 * 17 * fits <= 10 * LONG_PASSES < 11 * 17 * (fits + 1) + 11


@pytest.mark.parametrize(
    ("request_", "stream"), [(LONG, False), (LONG, True), (LONG_CHAT, False), (LONG_CHAT, True)]
)
def test_time_is_limited(client: httpx.Client, request_: dict[str, Any], stream: bool) -> None:
    """Ten long answers, three at a time: no machine has them in time."""
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
def test_a_client_that_leaves_is_forgotten(
    client: httpx.Client,
    request_: dict[str, Any],
    stream: bool,
    queued: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Mid-thought, or before it was its turn; it should take less than a second."""
    others = MAX_RUNNING if queued else 0
    with ExitStack() as neighbours:
        if others:
            neighbours.enter_context(under_way(client, n=others, max_tokens=600, thought_budget=4))
        with under_way(client, request_, stream=stream):
            pass
        seconds = eventually(lambda: served(client) == others)
    seconds_to_idle = eventually(lambda: is_idle(client))
    with capsys.disabled():
        print(f"\nforgotten after {seconds:.2f} s, all memory free {seconds_to_idle:.2f} s later")


def test_the_end(client: httpx.Client, limited: RunningServer) -> None:
    """Last: it ends the server. Those who take too long for it are told so."""
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


def test_a_second_signal_ends_the_server_at_once() -> None:
    with running_server(DEMO) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        with under_way(client) as connection:
            server.process.terminate()
            eventually(lambda: "Stopping:" in server.log)
            server.process.terminate()
            assert server.process.wait(20) == -signal.SIGTERM
            assert connection.recv(100) == b""
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive


def test_a_dead_engine_ends_the_server() -> None:
    with running_server(DEMO) as server, httpx.Client(base_url=server.url, timeout=120) as client:
        engine = engine_of(server)
        with ThreadPoolExecutor() as pool:
            whole = pool.submit(ask, client, **LONG)
            stream = pool.submit(ask, client, **LONG, stream=True)
            eventually(lambda: served(client) == 2)
            engine.kill()
            assert 503 in health_until_gone(server)
        error_of(whole.result(), 500)
        *_, error, done = [line for line in stream.result().text.splitlines() if line]
        assert "error" in json.loads(error.removeprefix("data: "))
        assert done == "data: [DONE]"
        assert server.process.wait(60) == ExitStatus.ENGINE_FAILED
        assert "python -m server: the engine died" in server.log.splitlines()


def health_until_gone(server: RunningServer) -> set[int]:
    """The statuses of /health until nobody answers any more."""
    statuses = set()
    while True:
        try:
            statuses.add(httpx.get(f"{server.url}/health").status_code)
        except httpx.TransportError:
            return statuses
        time.sleep(0.02)


def engine_of(server: RunningServer) -> psutil.Process:
    children = psutil.Process(server.process.pid).children()
    (engine,) = [child for child in children if "EngineCore" in child.cmdline()[0]]
    return engine
