"""Streamed chunks: which are completed, with what, and which are passed on unchanged."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from server.api.streaming import completed, with_counts, with_errors, with_thoughts
from server.errors import OutOfTime
from server.vllm_api import RequestOutput
from tests.support.workers import Workers, output, response, thoughts_of


@pytest.fixture
def workers() -> Workers:
    return Workers()


def line_of(chunk: dict[str, Any]) -> str:
    """A chunk as a line of vLLM's stream."""
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def chunk_of(line: str) -> dict[str, Any]:
    chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return chunk


@pytest.mark.parametrize("budget", [0, 2])
async def test_a_chunk_without_additions_is_passed_on_as_vllm_made_it(
    workers: Workers, budget: int
) -> None:
    thoughts, _ = thoughts_of(workers, wanted=False, budget=budget)
    # Spaces that we would not write, and a text that looks like a field.
    chunk = {"choices": [{"index": 0, "text": 'an escaped "usage": field'}]}
    line = f"data: {json.dumps(chunk)}\n\n"
    assert completed(line, thoughts, is_first=False) is line
    assert chunk_of(completed(line, thoughts, is_first=True)) == chunk | {
        "quiet_star": thoughts.settings
    }


async def test_a_chunk_with_usage_is_completed(workers: Workers) -> None:
    thoughts, _ = thoughts_of(workers, wanted=False)
    await thoughts.see(0, output(3))
    line = line_of({"choices": [{"index": 0, "text": "t1"}], "usage": {"completion_tokens": 3}})
    usage = chunk_of(completed(line, thoughts, is_first=False))["usage"]
    assert usage == {"completion_tokens": 3, "thought_tokens": 6}


@pytest.mark.parametrize("budget", [0, 2])
async def test_a_chunk_is_completed_where_thoughts_are_wanted(
    workers: Workers, budget: int
) -> None:
    thoughts, keys = thoughts_of(workers, budget=budget)
    if budget:
        workers.think(keys[0], "cmpl-x-0-abc", 0)
    await thoughts.see(0, output(1))
    (choice,) = chunk_of(completed(line_of(response(0)), thoughts, is_first=False))["choices"]
    assert [thought and thought["token_ids"] for thought in choice["thoughts"]] == (
        [[0, 0]] if budget else [None]
    )


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("line", ["data: [DONE]\n\n", 'data: {"error":{"message":"x"}}\n\n'])
async def test_other_lines_are_passed_on(workers: Workers, line: str, wanted: bool) -> None:
    thoughts, _ = thoughts_of(workers, wanted=wanted)
    for is_first in (False, True):
        assert completed(line, thoughts, is_first) is line


async def test_a_stream_gets_increments(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers)

    async def outputs() -> AsyncGenerator[tuple[int, RequestOutput]]:
        for index in range(3):
            workers.think(keys[0], "cmpl-x-0-abc", index)
            yield 0, output(1)

    sent: list[dict[str, Any]] = []
    async for _ in with_counts(outputs(), thoughts):
        chunk = response(0, usage={})
        thoughts.describe_chunk(chunk, is_first=not sent)
        sent.append(chunk)
    assert [[t["token_ids"][0] for t in c["choices"][0]["thoughts"]] for c in sent] == [
        [0],
        [1],
        [2],
    ]
    used = [chunk["usage"]["thought_tokens"] for chunk in sent]
    assert used == [2, 4, 6]
    counts = [{"thoughts": number, "passes": 3 * number} for number in (1, 2, 3)]
    assert sent[0]["quiet_star"] == thoughts.settings | counts[0]
    assert [chunk["quiet_star"] for chunk in sent[1:]] == counts[1:]


async def test_tokens_without_a_chunk_of_their_own_are_in_the_next(workers: Workers) -> None:
    """vLLM sends none while it waits whether a text becomes a tool call."""
    thoughts, keys = thoughts_of(workers)
    for index in range(3):
        workers.think(keys[0], "cmpl-x-0-abc", index)
        await thoughts.see(0, output(1))
    chunk = response(0)
    thoughts.describe_chunk(chunk, is_first=True)
    assert [thought["token_ids"][0] for thought in chunk["choices"][0]["thoughts"]] == [0, 1, 2]


async def test_an_abandoned_stream_closes_the_engines_outputs(workers: Workers) -> None:
    thoughts, _ = thoughts_of(workers)
    closed = []

    async def outputs() -> AsyncGenerator[tuple[int, RequestOutput]]:
        try:
            yield 0, output(1)
        finally:
            closed.append(True)

    watched = with_counts(outputs(), thoughts)
    await anext(watched)
    await watched.aclose()
    assert closed


async def test_an_abandoned_stream_closes_its_lines_and_outputs(workers: Workers) -> None:
    thoughts, _ = thoughts_of(workers)
    closed = []

    async def endless(name: str) -> AsyncGenerator[str]:
        try:
            while True:
                yield line_of(response(0))
        finally:
            closed.append(name)

    outputs = endless("outputs")
    await anext(outputs)
    stream = with_thoughts(endless("lines"), outputs, thoughts)
    await anext(stream)
    await stream.aclose()
    assert closed == ["lines", "outputs"]


async def test_a_refusal_within_a_stream_is_its_last_event() -> None:
    async def lines() -> AsyncGenerator[str]:
        yield "data: {}\n\n"
        raise OutOfTime("too long")

    first, error, done = [line async for line in with_errors(lines())]
    assert first == "data: {}\n\n"
    assert chunk_of(error)["error"]["message"] == "too long"
    assert done == "data: [DONE]\n\n"
