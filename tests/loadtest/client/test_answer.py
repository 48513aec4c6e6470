"""Reading streams: server-sent events, tokens, and what can be wrong."""

import json
from typing import Any

import pytest

from loadtest.client.answer import Answer, Asked, Counting, find_problem
from loadtest.client.sse import EventParser
from loadtest.records import Failure

STREAM = (
    b": keep-alive\r\n\r\ndata: one\r\n\r\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\ndata: 3\n\n"
)


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    parser = EventParser()
    events = []
    for start in range(0, len(STREAM), size):
        events += parser.feed(STREAM[start : start + size])
    assert events == [b"one", b"two\nlines", b"3"]


def test_an_event_is_given_as_soon_as_it_is_complete() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b") == [b"a"]
    assert parser.feed(b"c\n") == []
    assert parser.feed(b"\n") == [b"bc"]


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


def test_where_nothing_counts_the_usage_is_believed_about_the_last_chunk() -> None:
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
def test_thoughts_are_held_against_the_budget(asked: Asked, failure: Failure | None) -> None:
    problem = find_problem(read(Counting.TOKEN_IDS, *COMPLETE), asked)
    assert (problem and problem.failure) == failure


def test_another_budget_in_force_than_the_one_asked_for_is_a_failure() -> None:
    first = json.dumps({"choices": [], "quiet_star": {"thought_budget": 3}}).encode()
    problem = find_problem(read(Counting.TOKEN_IDS, first, *COMPLETE), Asked(2, budget=4))
    assert problem is not None
    assert problem.message == "thought with a budget of 3, asked for 4"


def test_no_thoughts_are_fine_where_none_are_due() -> None:
    answer = read(Counting.TOKEN_IDS, COMPLETE[0], usage(2, thoughts=0), b"[DONE]")
    assert find_problem(answer, Asked(2, budget=0)) is None
    assert find_problem(answer, Asked(2, budget=4, thought_limit=0)) is None
    problem = find_problem(answer, Asked(2, budget=4))
    assert problem is not None
    assert problem.failure is Failure.OVER_BUDGET
