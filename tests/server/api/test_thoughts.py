"""One request's thoughts, with made-up workers and outputs of the engine."""

import asyncio

import pytest

from tests.support.workers import Workers, numbers, output, response, thoughts_of


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
