"""One request's thoughts, with made-up workers and outputs of the engine."""

import asyncio

import pytest

from quietstar_infer.params import ThoughtParams
from tests.support.workers import Workers, numbers, output, response, thoughts_of, thoughts_with


@pytest.fixture
def workers() -> Workers:
    return Workers()


async def test_each_prompt_has_a_key_of_its_own(workers: Workers) -> None:
    _, keys = thoughts_of(workers, prompts=3)
    assert len(set(keys)) == 3
    assert all(key is not None and len(key) > 40 for key in keys)


@pytest.mark.parametrize(("wanted", "budget"), [(False, 2), (True, 0)])
async def test_nothing_is_recorded_unless_it_will_be_fetched(
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


async def test_thoughts_after_the_last_token_are_left_out(workers: Workers) -> None:
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


async def test_the_thoughts_of_all_prompts_are_deleted(workers: Workers) -> None:
    thoughts, keys = thoughts_of(workers, prompts=2)
    thoughts.forget()
    await asyncio.sleep(0)
    assert workers.dropped == keys


GATED = ThoughtParams(2, threshold=0.1)


async def test_a_token_that_was_not_thought_about_says_why(workers: Workers) -> None:
    thoughts, (keys,) = thoughts_with(workers, GATED)
    workers.skip(keys.record, "cmpl-x-0-abc", 0)
    workers.think(keys.record, "cmpl-x-0-abc", 1)
    await thoughts.see(0, output(2))
    described = response(0)
    thoughts.describe(described)
    (choice,) = described["choices"]
    assert choice["thoughts"] == [
        {"token_ids": [], "text": "", **numbers(0, skipped=True)},
        {"token_ids": [1, 1], "text": "[1, 1]", **numbers(1)},
    ]
    assert choice["thoughts"][0]["mixing_weight"] is None
    assert "thoughts_truncated" not in choice


async def test_a_lost_entry_of_a_gated_request_is_reported(workers: Workers) -> None:
    thoughts, (keys,) = thoughts_with(workers, GATED)
    workers.skip(keys.record, "cmpl-x-0-abc", 0, 2)
    await thoughts.see(0, output(3))
    described = response(0)
    thoughts.describe(described)
    (choice,) = described["choices"]
    assert choice["thoughts"][1] is None
    assert choice["thoughts_truncated"]


async def test_after_a_spent_token_budget_nothing_is_lost(workers: Workers) -> None:
    """Where it was spent depends on the gate."""
    params = ThoughtParams(2, threshold=0.1, token_budget=4)
    thoughts, (keys,) = thoughts_with(workers, params)
    workers.skip(keys.record, "cmpl-x-0-abc", 0, 2)
    workers.think(keys.record, "cmpl-x-0-abc", 1, 3)
    await thoughts.see(0, output(3))
    chunk = response(0)
    thoughts.describe_chunk(chunk, is_first=True)
    await thoughts.see(0, output(3))
    rest = response(0)
    thoughts.describe_chunk(rest, is_first=False)
    last, *spent = rest["choices"][0]["thoughts"]
    assert last["token_ids"] == [3, 3]
    assert spent == [None, None]
    assert not any("thoughts_truncated" in c for part in (chunk, rest) for c in part["choices"])


@pytest.mark.parametrize(
    ("params", "gate"),
    [(GATED, "learned"), (ThoughtParams(2), None), (ThoughtParams(0, threshold=0.1), None)],
)
async def test_settings_name_the_gate_that_decided(
    workers: Workers, params: ThoughtParams, gate: str | None
) -> None:
    thoughts, _ = thoughts_with(workers, params)
    assert thoughts.settings == {
        "thought_budget": params.budget,
        "thought_temperature": 1.0,
        "thought_threshold": params.threshold,
        "thinking_token_budget": None,
        "gate": gate,
    }


async def test_a_stream_has_settings_first_and_counts_with_its_usage(workers: Workers) -> None:
    thoughts, _ = thoughts_with(workers, ThoughtParams(2), choices=2)
    await thoughts.see(0, output(1, 2))
    first, running, last = response(0), response(1, usage={}), response(usage={})
    for is_first, chunk in ((True, first), (False, running), (False, last)):
        thoughts.describe_chunk(chunk, is_first)
    assert first["quiet_star"] == thoughts.settings
    assert running["quiet_star"] == {"thoughts": 2, "passes": 6}
    assert last["quiet_star"] == {"thoughts": 3, "passes": 9}
