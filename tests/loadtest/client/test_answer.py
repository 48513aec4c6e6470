"""Streamed answers: tokens, and what can be wrong."""

import json
from typing import Any

import pytest

from loadtest.client.answer import Answer, Asked, Counting, find_problem
from loadtest.records import Failure


def chunk(text: str = "", **fields: Any) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": None, **fields}
    return json.dumps({"choices": [choice]}).encode()


def usage(tokens: int, thoughts: int | None = None) -> bytes:
    details = None if thoughts is None else {"reasoning_tokens": thoughts}
    content = {"completion_tokens": tokens, "completion_tokens_details": details}
    return json.dumps({"choices": [], "usage": content}).encode()


def read(counting: Counting, *events: bytes) -> Answer:
    answer = Answer(counting)
    for time, event in enumerate(events):
        answer.add(event, time)
    answer.complete()
    return answer


def test_tokens_of_one_chunk_share_its_time() -> None:
    answer = read(
        Counting.TOKEN_IDS,
        chunk(" a b", token_ids=[1, 2]),
        chunk("", token_ids=[3]),  # no text: a part of a character, or an end of text
        chunk("c", token_ids=[4], finish_reason="stop"),
        usage(4),
        b"[DONE]",
    )
    assert answer.token_times == [0, 0, 1, 2]
    assert answer.text == " a bc"
    assert find_problem(answer, Asked(tokens=4)) is None


def test_a_running_usage_counts_too() -> None:
    def running(text: str, tokens: int) -> bytes:
        content = json.loads(chunk(text, finish_reason="length"))
        return json.dumps({**content, "usage": {"completion_tokens": tokens}}).encode()

    answer = read(Counting.RUNNING_USAGE, running("a", 2), running("b", 3), usage(3), b"[DONE]")
    assert answer.token_times == [0, 0, 1]


def test_without_a_count_per_chunk_the_final_usage_adds_the_missing_tokens() -> None:
    chunks = chunk("a"), chunk("b", finish_reason="stop")
    assert read(Counting.CHUNKS, *chunks, b"[DONE]").token_times == [0, 1]
    assert read(Counting.CHUNKS, *chunks, usage(4), b"[DONE]").token_times == [0, 1, 1, 1]


def test_chat_chunks_are_read() -> None:
    answer = read(
        Counting.CHUNKS,
        chunk(delta={"role": "assistant", "content": ""}),
        chunk(delta={"content": "hi"}),
    )
    assert answer.text == "hi"
    assert answer.token_times == [1]


COMPLETE = (chunk("ab", token_ids=[1, 2], finish_reason="length"), usage(2, thoughts=8), b"[DONE]")


@pytest.mark.parametrize(
    ("asked", "failure"),
    [
        (Asked(2, budget=4), None),
        (Asked(2, budget=None), None),
        (Asked(2, budget=5), None),  # less than allowed is no failure
        (Asked(2, budget=3), Failure.OVER_BUDGET),
        (Asked(2, budget=0), Failure.OVER_BUDGET),
        (Asked(2, budget=6, thought_limit=8), None),
        (Asked(2, budget=6, thought_limit=7), Failure.OVER_BUDGET),
        (Asked(1, budget=4), Failure.MISCOUNTED),
    ],
)
def test_thought_tokens_are_checked_against_budget(asked: Asked, failure: Failure | None) -> None:
    problem = find_problem(read(Counting.TOKEN_IDS, *COMPLETE), asked)
    assert (problem and problem.failure) == failure


def test_another_budget_in_force_than_the_one_asked_for_is_a_failure() -> None:
    first = json.dumps({"choices": [], "quiet_star": {"thought_budget": 3}}).encode()
    problem = find_problem(read(Counting.TOKEN_IDS, first, *COMPLETE), Asked(2, budget=4))
    assert problem is not None
    assert problem.message == "thought with a budget of 3, asked for 4"


def test_no_thought_tokens_are_right_where_none_are_due() -> None:
    answer = read(Counting.TOKEN_IDS, COMPLETE[0], usage(2, thoughts=0), b"[DONE]")
    assert find_problem(answer, Asked(2, budget=0)) is None
    assert find_problem(answer, Asked(2, budget=4, thought_limit=0)) is None
    problem = find_problem(answer, Asked(2, budget=4))
    assert problem is not None
    assert problem.failure is Failure.OVER_BUDGET
