"""Streamed answers: tokens, and what can be wrong."""

import json
from typing import Any

import pytest

from loadtest.client.answer import Answer, Asked, Counting, find_problem
from loadtest.records import Failure


def chunk(text: str = "", **fields: Any) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": None, **fields}
    return json.dumps({"choices": [choice]}).encode()


def usage(tokens: int, thoughts: int | None = None, inside: bool = False) -> bytes:
    """Of visible tokens and thoughts, which are counted apart, or as OpenAI counts reasoning."""
    content: dict[str, Any] = {"completion_tokens": tokens, "thought_tokens": thoughts}
    if inside:
        details = {"reasoning_tokens": thoughts}
        total = tokens + (thoughts or 0)
        content = {"completion_tokens": total, "completion_tokens_details": details}
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


@pytest.mark.parametrize("counting", [Counting.TOKEN_IDS, Counting.CHUNKS])
def test_reasoning_that_is_streamed_counts_where_the_usage_says_that_there_was_none(
    counting: Counting,
) -> None:
    """So does stock vLLM where the chat template opens the reasoning."""
    answer = read(
        counting,
        chunk(reasoning_content="hm hm", token_ids=[1, 2]),
        chunk(" a", token_ids=[3]),
        chunk(" b", token_ids=[4], finish_reason="stop"),
        usage(4, thoughts=0),
        b"[DONE]",
    )
    assert (answer.reasoning_times, answer.token_times) == ([0, 0], [1, 2])
    assert answer.thought_tokens == 2
    assert find_problem(answer, Asked(tokens=4)) is None


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


@pytest.mark.parametrize("thoughts", [0, 8])
@pytest.mark.parametrize("counting", list(Counting))
def test_hidden_thoughts_may_be_counted_as_openai_counts_reasoning(
    counting: Counting, thoughts: int
) -> None:
    """As a server of ours does with `--usage openai`, in running usage, too."""
    events, asked = [said(thought_budget=thoughts // 2)], Asked(2, budget=thoughts // 2)
    for number, last in enumerate((None, "length"), start=1):
        content = json.loads(chunk("a", token_ids=[number], finish_reason=last))
        so_far = json.loads(usage(number, number * thoughts // 2, inside=True))["usage"]
        events.append(json.dumps({**content, "usage": so_far}).encode())
    answer = read(counting, *events, usage(2, thoughts, inside=True), b"[DONE]")
    assert answer.token_times == [1, 2]
    assert answer.thought_tokens == thoughts
    assert find_problem(answer, asked) is None
    wrong = read(counting, *events, usage(3, thoughts, inside=True), b"[DONE]")
    problem = find_problem(wrong, asked)
    if counting is Counting.CHUNKS:  # taken for a token that came with the last chunk
        assert len(wrong.token_times) == 3
    else:
        assert problem is not None
        assert problem.failure is Failure.MISCOUNTED


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


def said(**fields: Any) -> bytes:
    return json.dumps({"choices": [], "quiet_star": fields}).encode()


@pytest.mark.parametrize(
    ("in_force", "asked", "thoughts", "message"),
    [
        (0.1, 0.1, 0, None),  # behind a gate there may be no thought at all
        (0.1, None, 0, None),  # the server's own threshold
        (None, 0.1, 0, None),
        (0, 0, 0, "no thought tokens, 8 were asked for"),
        (0.5, 0.1, 0, "thought with a threshold of 0.5, asked for 0.1"),
        (0.1, 0.1, 4, None),
        (0.1, 0.1, 12, "12 thought tokens, 8 were allowed"),
    ],
)
def test_thought_tokens_are_checked_against_the_threshold(
    in_force: float | None, asked: float | None, thoughts: int, message: str | None
) -> None:
    first = [] if in_force is None else [said(thought_threshold=in_force)]
    answer = read(Counting.TOKEN_IDS, *first, COMPLETE[0], usage(2, thoughts), b"[DONE]")
    problem = find_problem(answer, Asked(2, budget=4, threshold=asked))
    assert (problem and problem.message) == message


def test_counts_of_thoughts_and_passes_are_those_of_the_whole_answer() -> None:
    begun = said(thought_budget=4, thought_threshold=0.1, thoughts=0, passes=0)
    assert read(Counting.TOKEN_IDS, begun, *COMPLETE).passes is None
    answer = read(Counting.TOKEN_IDS, begun, *COMPLETE, said(thoughts=1, passes=7))
    assert (answer.thoughts, answer.passes) == (1, 7)
    assert (answer.budget_in_force, answer.threshold_in_force) == (4, 0.1)
    # Of one thought there are four tokens, not eight.
    problem = find_problem(answer, Asked(2, budget=4, threshold=0.1))
    assert problem is not None
    assert problem.message == "8 thought tokens, 4 were allowed"
