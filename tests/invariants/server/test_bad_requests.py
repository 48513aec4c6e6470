"""Each invalid request gets its recorded status and message, and does not affect other requests."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.bad_requests import (
    BAD_CHATS,
    BAD_COMPLETIONS,
    CHATS,
    COMPLETIONS,
    GOOD,
    HEAD,
    ON_THE_WIRE,
    SCORING,
    SLOW,
    all_bad,
    exchange,
    recorded,
    refusal,
    refusal_on_the_wire,
    send,
)
from tests.support.load import error_of
from tests.support.servers import RECEIVE_SECONDS, RunningServer

pytestmark = pytest.mark.slow

REFUSALS = recorded()


@pytest.fixture(scope="module", autouse=True)
def neighbours(http: httpx.Client) -> Iterator[None]:
    """Thinking requests meanwhile: their answers equal those of the same request alone."""
    body = {
        "prompt": "t1 t2 t3",
        "max_tokens": 60,
        "temperature": 1,
        "seed": 5,
        "ignore_eos": True,
        "return_thoughts": True,
    }

    def ask() -> Any:
        (choice,) = http.post("/v1/completions", json=body).raise_for_status().json()["choices"]
        return choice["text"], [thought["token_ids"] for thought in choice["thoughts"]]

    alone = ask()
    answers: list[Any] = []
    done = threading.Event()

    def ask_on() -> None:
        while not done.is_set():
            answers.append(ask())

    neighbour = threading.Thread(target=ask_on)
    neighbour.start()
    yield
    done.set()
    neighbour.join()
    assert answers
    assert all(answer == alone for answer in answers)
    assert ask() == alone


@pytest.mark.parametrize("name", all_bad())
def test_an_invalid_request_gets_the_recorded_refusal(http: httpx.Client, name: str) -> None:
    answer = send(http, all_bad()[name])
    assert refusal(answer.status_code, answer.content) == REFUSALS[name]
    error_of(answer, answer.status_code)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (path, name)
        for path, changes in ((COMPLETIONS, BAD_COMPLETIONS), (CHATS, BAD_CHATS))
        for name, change in changes.items()
        if "stream" not in change
    ],
)
def test_an_invalid_stream_never_begins(http: httpx.Client, path: str, name: str) -> None:
    change = (BAD_COMPLETIONS if path == COMPLETIONS else BAD_CHATS)[name]
    answer = http.post(path, json={**GOOD[path], **change, "stream": True})
    assert refusal(answer.status_code, answer.content) == REFUSALS[f"{path} {name}"]


def test_all_refusals_are_4xx_with_a_message() -> None:
    names = {*all_bad(), *ON_THE_WIRE, *SLOW}
    assert names == REFUSALS.keys()
    assert len(names) > 200
    for answer in REFUSALS.values():
        assert 400 <= answer["status"] < 500
        assert len(answer["text"] if "text" in answer else answer["error"]["message"]) > 10


@pytest.mark.parametrize(
    "change", [{"prompt_logprobs": 1}, SCORING, {"prompt": [5] * 1000, "max_tokens": 30}]
)
def test_restrictions_of_thinking_do_not_hold_at_budget_0(
    http: httpx.Client, change: dict[str, Any]
) -> None:
    answer = http.post(COMPLETIONS, json={**GOOD[COMPLETIONS], **change, "thought_budget": 0})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_invalid_http_is_refused(server: RunningServer, name: str) -> None:
    assert refusal_on_the_wire(exchange(server.url, ON_THE_WIRE[name])) == REFUSALS[name]


def test_slow_senders_are_cut_off(server: RunningServer) -> None:
    """All at once, because each takes as long as the server allows."""
    with ThreadPoolExecutor() as pool:
        answers = {name: pool.submit(exchange, server.url, sent) for name, sent in SLOW.items()}
        silent = pool.submit(exchange, server.url, b"")
        drips = pool.submit(exchange, server.url, HEAD, b"X: a\r\n")
    for name, answer in answers.items():
        assert refusal_on_the_wire(answer.result()) == REFUSALS[name], name
    assert f"within {RECEIVE_SECONDS} s" in json.dumps(REFUSALS)
    assert silent.result() == b""
    assert drips.result().startswith(b"HTTP/1.1 408 ")


def test_a_server_that_neither_thinks_nor_shows_thoughts(quick_server: RunningServer) -> None:
    url = f"{quick_server.url}/v1/completions"
    error = error_of(httpx.post(url, json={"prompt": "a", "thought_budget": 1}), 400)
    assert "thinking is off on this server: only 0 is allowed" in error["message"]
    error = error_of(httpx.post(url, json={"prompt": "a", "return_thoughts": True}), 400)
    assert "without --allow-return-thoughts" in error["message"]

    answer = httpx.post(url, json={"prompt": "a", "model": "quicker"}, timeout=60).json()
    assert answer["quiet_star"]["thought_budget"] == 0
    assert answer["usage"]["thought_tokens"] == 0
    assert httpx.post(url, json={"prompt": "a", "thought_budget": 0}).status_code == 200
    assert "thinking is off" in quick_server.log
