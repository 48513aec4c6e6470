"""One request's thoughts, with workers and outputs that the test makes up."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quietstar_infer.params import ThoughtParams
from server.completions import seen
from server.engine import Engine, RequestOutput
from server.request_metrics import RequestMetrics
from server.thoughts import RequestThoughts


class Workers:
    """Answers like the engine's workers, and notes which keys were dropped."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.dropped: list[str] = []
        self.request_metrics = RequestMetrics("made up", max_budget=16)

    def think(self, key: str | None, request_id: str, *indices: int) -> None:
        assert key is not None
        thoughts = [{"index": i, "token_ids": [i, i], **numbers(i)} for i in indices]
        self.records.setdefault(key, {})[request_id] = thoughts

    async def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        return self.records.pop(key, {})

    async def drop_thoughts(self, key: str) -> None:
        self.dropped.append(key)


def numbers(index: int) -> dict[str, float]:
    """What the workers measure of the thought before a token."""
    return {"mixing_weight": index / 2, "base_logprob": -index - 2, "mixed_logprob": -index - 1}


@pytest.fixture
def workers() -> Workers:
    return Workers()


def thoughts_of(
    workers: Workers, prompts: int = 1, choices: int = 1, wanted: bool = True, budget: int = 2
) -> tuple[RequestThoughts, list[str | None]]:
    """A request's thoughts and the record keys of its prompts."""
    thoughts = RequestThoughts(
        ThoughtParams(budget), choices, wanted, cast(Engine, workers), lambda ids: f"{list(ids)}"
    )
    for _ in range(prompts):
        thoughts.add_prompt(room_for_output=10, num_scored_tokens=0)
    return thoughts, [thoughts.next_prompt().params.record_key for _ in range(prompts)]


def output(*tokens_by_choice: int) -> RequestOutput:
    outputs = [
        SimpleNamespace(index=index, token_ids=[0] * tokens, finish_reason=None)
        for index, tokens in enumerate(tokens_by_choice)
    ]
    return cast(RequestOutput, SimpleNamespace(outputs=outputs, finished=False))


def response(*indices: int, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index} for index in indices], **fields}


async def test_each_prompt_has_a_key_of_its_own(workers: Workers) -> None:
    _, keys = thoughts_of(workers, prompts=3)
    assert len(set(keys)) == 3
    assert all(key is not None and len(key) > 40 for key in keys)


@pytest.mark.parametrize(("wanted", "budget"), [(False, 2), (True, 0)])
async def test_nothing_is_recorded_that_nobody_fetches(
    workers: Workers, wanted: bool, budget: int
) -> None:
    thoughts, keys = thoughts_of(workers, wanted=wanted, budget=budget)
    assert keys == [None]
    await thoughts.fetch_all()
    thoughts.forget()
    assert not workers.dropped


async def test_thoughts_find_their_choice_and_token(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers, prompts=2, choices=2)
    workers.think(keys[0], "1_cmpl-x-0-abc", 0)
    workers.think(keys[1], "0_cmpl-x-1-abc", 0, 1)
    await thoughts.fetch_all()
    thoughts.count_tokens(0, output(0, 1))
    thoughts.count_tokens(1, output(2, 0))
    described = response(0, 1, 2, 3)
    thoughts.describe(described)
    by_choice = [choice["thoughts"] for choice in described["choices"]]
    first, second = ({"token_ids": [i, i], "text": f"[{i}, {i}]", **numbers(i)} for i in (0, 1))
    assert by_choice == [[], [first], [first, second], []]


async def test_what_was_thought_behind_the_last_token_is_left_out(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers)
    workers.think(keys[0], "cmpl-x-0-abc", 0, 1, 2)
    await thoughts.fetch_all()
    thoughts.count_tokens(0, output(2))
    described = response(0)
    thoughts.describe(described)
    assert [thought["token_ids"] for thought in described["choices"][0]["thoughts"]] == [
        [0, 0],
        [1, 1],
    ]
    assert "thoughts_truncated" not in described["choices"][0]


async def test_a_lost_thought_is_null_and_reported(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers)
    workers.think(keys[0], "cmpl-x-0-abc", 0, 2)
    await thoughts.fetch_all()
    thoughts.count_tokens(0, output(3))
    described = response(0)
    thoughts.describe(described)
    (choice,) = described["choices"]
    assert choice["thoughts"][1] is None
    assert choice["thoughts_truncated"]


async def test_a_stream_gets_increments(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers)

    async def outputs() -> AsyncGenerator[tuple[int, RequestOutput]]:
        for index in range(3):
            workers.think(keys[0], "cmpl-x-0-abc", index)
            yield 0, output(1)

    sent: list[dict[str, Any]] = []
    async for _ in seen(outputs(), thoughts):
        chunk = response(0, usage={})
        thoughts.describe_chunk(chunk, is_first=not sent)
        sent.append(chunk)
    assert [[t["token_ids"][0] for t in c["choices"][0]["thoughts"]] for c in sent] == [
        [0],
        [1],
        [2],
    ]
    used = [chunk["usage"]["completion_tokens_details"]["reasoning_tokens"] for chunk in sent]
    assert used == [2, 4, 6]
    assert ["quiet_star" in chunk for chunk in sent] == [True, False, False]


async def test_tokens_without_a_chunk_of_their_own_are_in_the_next(workers: Workers) -> None:
    """vLLM sends none while it waits whether a text becomes a tool call."""
    thoughts, keys = thoughts_of(workers)
    for index in range(3):
        workers.think(keys[0], "cmpl-x-0-abc", index)
        await thoughts.see(0, output(1))
    chunk = response(0)
    thoughts.describe_chunk(chunk, is_first=True)
    assert [thought["token_ids"][0] for thought in chunk["choices"][0]["thoughts"]] == [0, 1, 2]


async def test_an_abandoned_stream_closes_the_engines(workers: Workers) -> None:
    thoughts, _ = thoughts_of(workers)
    closed = []

    async def outputs() -> AsyncGenerator[tuple[int, RequestOutput]]:
        try:
            yield 0, output(1)
        finally:
            closed.append(True)

    watched = seen(outputs(), thoughts)
    await anext(watched)
    await watched.aclose()
    assert closed


async def test_all_keys_are_dropped(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers, prompts=2)
    thoughts.forget()
    await asyncio.sleep(0)
    assert workers.dropped == keys
