"""A model that computes NaN for some texts: their requests fail with a reason, nobody else's do."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.checkpoints import write_overflowing
from tests.support.scrapes import scrape
from tests.support.servers import CHAT_TEMPLATE, RunningServer, running_server

pytestmark = pytest.mark.slow

BAD = 63
FINE = [1, 5, 6, 7]
# More than a block of the KV cache, so that it would be found there again.
LONG = [1, *range(3, 50)]
WAYS: dict[str, dict[str, Any]] = {
    "budget 0": {"thought_budget": 0},
    "thoughts": {"thought_budget": 3},
    "thoughts, shown": {"thought_budget": 3, "return_thoughts": True},
    "with a gate": {"thought_budget": 3, "thought_threshold": 0.5},
    "sampled": {"thought_budget": 3, "temperature": 1.0, "seed": 1},
    "log-probabilities": {"logprobs": 2, "thought_budget": 0},
    "scored": {"logprobs": 2, "echo": True, "thought_budget": 2},
    "scored, budget 0": {"logprobs": 2, "echo": True, "thought_budget": 0},
    "a choice of a grammar": {"structured_outputs": {"choice": ["t5", "t6"]}},
    "several": {"n": 2, "temperature": 1.0, "thought_budget": 1},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    model = write_overflowing(tmp_path_factory.mktemp("model"), BAD)
    shape = ("--block-size", "32", "--max-model-len", "128")
    # So few blocks that those of failed requests are used again at once.
    cache = str(8 * 32 * 2 * 2 * 32 * 4)
    options = ("--allow-return-thoughts", "--chat-template", CHAT_TEMPLATE)
    with running_server(model, *options, *shape, "--kv-cache-memory-bytes", cache) as it:
        yield it


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as it:
        yield it


def complete(client: httpx.Client, prompt: list[int], **fields: Any) -> httpx.Response:
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **fields}
    # It must not be sampled either.
    if "structured_outputs" not in body:
        body["logit_bias"] = {str(BAD): -100}
    return client.post("/v1/completions", json=body)


def samples(response: httpx.Response) -> list[Any]:
    """By choice: its text and its thoughts. Log-probabilities differ in their last digit with the
    batch."""
    choices = response.json().get("choices", [])
    return [(it["text"], [t["token_ids"] for t in it.get("thoughts", [])]) for it in choices]


def assert_is_the_error(error: dict[str, Any]) -> None:
    assert error["code"] == 500
    assert error["type"] == "InternalServerError"
    assert "not finite (NaN or infinity)" in error["message"]


@pytest.mark.parametrize("way", WAYS)
def test_the_request_fails_and_says_why(client: httpx.Client, way: str) -> None:
    for prompt in ([1, BAD, 5], [*LONG, BAD]):
        response = complete(client, prompt, **WAYS[way])
        assert response.status_code == 500
        assert response.headers["x-should-retry"] == "false"
        assert_is_the_error(response.json()["error"])


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_ends_with_the_error(client: httpx.Client, way: str) -> None:
    response = complete(client, [1, BAD, 5], stream=True, **WAYS[way])
    *chunks, last, done = response.text.split("\n\n")[:-1]
    assert done == "data: [DONE]"
    assert_is_the_error(json.loads(last.removeprefix("data: "))["error"])
    assert "NaN" not in "".join(chunks)


def test_a_chat_fails_and_says_why(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": f"t{BAD}"}]
    body = {"messages": messages, "max_tokens": 4, "thought_budget": 2}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 500
    assert_is_the_error(response.json()["error"])
    streamed = client.post("/v1/chat/completions", json={**body, "stream": True})
    last, done = streamed.text.split("\n\n")[-3:-1]
    assert done == "data: [DONE]"
    assert_is_the_error(json.loads(last.removeprefix("data: "))["error"])


@pytest.mark.parametrize("way", ["budget 0", "thoughts, shown", "with a gate", "scored"])
def test_requests_beside_and_after_it_are_answered_as_alone(client: httpx.Client, way: str) -> None:
    fields = WAYS[way]

    def answers(prompts: list[list[int]]) -> list[Any]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            found = list(pool.map(lambda prompt: complete(client, prompt, **fields), prompts))
        assert [it.status_code for it in found] == [500 if BAD in it else 200 for it in prompts]
        return [samples(it) for it in found]

    alone = [answers([prompt])[0] for prompt in (FINE, LONG)]
    for _ in range(4):
        found = answers([FINE, [1, BAD, 5], LONG, [*LONG, BAD]])
        assert [found[0], found[2]] == alone
    assert [answers([prompt])[0] for prompt in (FINE, LONG)] == alone
    assert client.get("/health").status_code == 200


def test_what_has_failed_is_counted(client: httpx.Client, server: RunningServer) -> None:
    def failed() -> float:
        return scrape(server.url).value("quietstar:requests_failed_total", reason="not_finite")

    before = failed()
    complete(client, [1, BAD])
    complete(client, FINE)
    assert failed() == before + 1
