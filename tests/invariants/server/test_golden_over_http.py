"""Over HTTP the engine reproduces the generations of the official code: text, thoughts, weights."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.servers import GOLDEN, RunningServer

pytestmark = pytest.mark.slow

# From the official code's float32 on another machine to the engine's.
TOLERANCE = 1e-3


def generations(case: str) -> list[dict[str, Any]]:
    content = json.loads((GOLDEN / case / "generation.json").read_text())
    found: list[dict[str, Any]] = content["generations"]
    return found


def thought_budget(case: str) -> int:
    """Passes of the base model per token, less the text token, START and END."""
    return int(json.loads((GOLDEN / case / "case.json").read_text())["n_ahead"]) - 3


def request(case: str, generation: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": generation["input_ids"],
        "max_tokens": len(generation["new_tokens"]),
        "temperature": 0,
        "thought_budget": thought_budget(case),
        "thought_temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "return_thoughts": True,
    }


def assert_repeats(generation: dict[str, Any], tokens: list[int], thoughts: Any) -> None:
    assert tokens == generation["new_tokens"]
    steps = generation["steps"]
    # The recordings have START and END around each thought.
    assert [thought["token_ids"] for thought in thoughts] == [
        step["thought"][1:-1] for step in steps
    ]
    weights = [thought["mixing_weight"] for thought in thoughts]
    assert weights == pytest.approx([step["mix_weight"] for step in steps], abs=TOLERANCE)


def assert_whole_responses_repeat(
    case: str, url: str, headers: dict[str, str] | None = None
) -> None:
    for generation in generations(case):
        answer = httpx.post(
            f"{url}/v1/completions", json=request(case, generation), headers=headers, timeout=120
        )
        (choice,) = answer.raise_for_status().json()["choices"]
        assert_repeats(generation, choice["token_ids"], choice["thoughts"])


def stream(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with httpx.stream(
        "POST", f"{url}/v1/completions", json={**body, "stream": True}, timeout=120
    ) as response:
        for line in response.iter_lines():
            if line and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data: "))


def test_n4(server: RunningServer) -> None:
    assert_whole_responses_repeat("engine_greedy_n4", server.url)


def test_n4_in_one_request(server: RunningServer) -> None:
    case = "engine_greedy_n4"
    recorded = generations(case)
    body = request(case, recorded[0]) | {"prompt": [one["input_ids"] for one in recorded]}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    for generation, choice in zip(recorded, answer.json()["choices"], strict=True):
        assert_repeats(generation, choice["token_ids"], choice["thoughts"])


def test_n4_in_streams(server: RunningServer) -> None:
    for generation in generations("engine_greedy_n4"):
        tokens: list[int] = []
        thoughts: list[Any] = []
        for chunk in stream(server.url, request("engine_greedy_n4", generation)):
            tokens += chunk["choices"][0]["token_ids"]
            thoughts += chunk["choices"][0]["thoughts"]
        assert_repeats(generation, tokens, thoughts)


def test_n8(n8_server: RunningServer) -> None:
    assert_whole_responses_repeat("engine_greedy_n8", n8_server.url)
