"""What a request costs, who is let in, and how long the others should wait."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from quietstar_infer.params import ThoughtParams
from server.admission import Admission, AdmissionLimits, PassRate
from server.cost import PromptCost, affordable_tokens, request_passes
from server.errors import BadRequest, OutOfTime, Overloaded
from server.time_limit import TimeLimit

CHUNK = 100
PROMPT = PromptCost(length=250, max_tokens=10)  # three chunks


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(
    queued_requests: int = 0, queued_passes: int = 0, request_passes: int = 0
) -> tuple[Admission, Clock]:
    clock = Clock()
    limits = AdmissionLimits(queued_requests, queued_passes, request_passes)
    return Admission(limits, CHUNK, clock), clock


@pytest.mark.parametrize(
    ("params", "prompts", "choices", "passes"),
    [
        (ThoughtParams(0), [PROMPT], 1, 3 + 10),
        (ThoughtParams(16), [PROMPT], 1, 3 + 10 * 17),
        (ThoughtParams(4), [PROMPT], 3, 3 + 3 * 10 * 5),
        (ThoughtParams(4), [PROMPT, PromptCost(100, 2)], 2, 3 + 2 * 10 * 5 + 1 + 2 * 2 * 5),
        # Ten thought tokens: four, four, two, and then none.
        (ThoughtParams(4, token_budget=10), [PROMPT], 1, 3 + 10 + 10),
        (ThoughtParams(4, token_budget=10), [PROMPT], 2, 3 + 2 * (10 + 10)),
        (ThoughtParams(4, token_budget=1000), [PROMPT], 1, 3 + 10 * 5),
        (ThoughtParams(4, token_budget=0), [PROMPT], 1, 3 + 10),
        # Scoring thinks about the prompt's own tokens, once for all answers.
        (ThoughtParams(4), [PromptCost(250, 10, scored=249)], 2, 3 + 249 * 5 + 2 * 10 * 5),
        (ThoughtParams(0), [PromptCost(250, 10, scored=249)], 1, 3 + 10),
    ],
)
def test_cost(params: ThoughtParams, prompts: list[PromptCost], choices: int, passes: int) -> None:
    assert request_passes(params, prompts, choices, CHUNK) == passes


def test_cost_is_what_the_thoughts_add_up_to() -> None:
    params = ThoughtParams(5, token_budget=23)
    by_token = sum(params.budget_at(index) + 1 for index in range(10))
    assert request_passes(params, [PromptCost(1, 10)], 1, CHUNK) == 1 + by_token


@pytest.mark.parametrize("limit", [0, 3, 7, 8, 50, 52, 53, 100_000])
def test_what_would_fit_fits_and_no_more(limit: int) -> None:
    params = ThoughtParams(4)
    tokens = affordable_tokens(params, [PROMPT], 1, CHUNK, limit)

    def cost(max_tokens: int) -> int:
        return request_passes(params, [PromptCost(250, max_tokens)], 1, CHUNK)

    assert tokens == 0 or cost(tokens) <= limit
    assert tokens == PROMPT.max_tokens or cost(tokens + 1) > limit


def test_too_expensive_a_request_learns_what_would_fit() -> None:
    doorman, _ = admission(request_passes=53)
    with pytest.raises(BadRequest, match=r"may take 103 passes .* allows 53") as caught:
        doorman.ticket().enter(ThoughtParams(4), [PROMPT], 2)
    assert "max_tokens of 5 would fit" in str(caught.value)
    assert caught.value.reason == "request_passes"
    doorman.ticket().enter(ThoughtParams(4), [PROMPT], 1)


def test_every_answer_counts_as_a_request() -> None:
    doorman, _ = admission(queued_requests=4)
    first, second = doorman.ticket(), doorman.ticket()
    first.enter(ThoughtParams(0), [PROMPT], 3)
    with pytest.raises(Overloaded, match="3 requests are being served") as caught:
        second.enter(ThoughtParams(0), [PROMPT], 2)
    assert caught.value.reason == "queued_requests"
    second.enter(ThoughtParams(0), [PROMPT], 1)
    first.close(0)
    first.close(0)  # counted once
    doorman.ticket().enter(ThoughtParams(0), [PROMPT], 3)


def test_thinking_requests_fill_the_queue_sooner() -> None:
    doorman, _ = admission(queued_passes=300)
    doorman.ticket().enter(ThoughtParams(16), [PROMPT], 1)  # 173 passes
    with pytest.raises(Overloaded) as caught:
        doorman.ticket().enter(ThoughtParams(16), [PROMPT], 1)
    assert caught.value.reason == "queued_passes"
    for _ in range(9):
        doorman.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded):
        doorman.ticket().enter(ThoughtParams(0), [PROMPT], 1)


def test_a_request_that_is_alone_is_let_in() -> None:
    doorman, _ = admission(queued_requests=1, queued_passes=1)
    ticket = doorman.ticket()
    ticket.enter(ThoughtParams(16), [PROMPT], 5)
    ticket.close(0)
    doorman.ticket().enter(ThoughtParams(16), [PROMPT], 5)


def test_a_refused_request_takes_no_place() -> None:
    doorman, _ = admission(queued_requests=1)
    running, refused = doorman.ticket(), doorman.ticket()
    running.enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded):
        refused.enter(ThoughtParams(0), [PROMPT], 1)
    refused.close(0)
    with pytest.raises(Overloaded):
        doorman.ticket().enter(ThoughtParams(0), [PROMPT], 1)


@pytest.mark.parametrize(("passes_made", "wait"), [(0, 1), (26, 5), (10**6, 1), (1, 60)])
def test_retry_after_follows_the_measured_speed(passes_made: int, wait: int) -> None:
    """Ten seconds of work: 26 passes are 2.6 per second, and one request of 13 must go first."""
    doorman, clock = admission(queued_requests=1)
    first = doorman.ticket()
    first.enter(ThoughtParams(0), [PROMPT], 1)
    clock.now += 10
    first.close(passes_made)
    clock.now += 1000  # idle
    doorman.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded, match=f"Try again in {wait} s") as caught:
        doorman.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    assert caught.value.headers == {"Retry-After": str(wait)}


def test_an_old_speed_is_forgotten() -> None:
    rate = PassRate()
    rate.add(100, 1)
    assert rate.seconds_for(100) == pytest.approx(1)
    for _ in range(600):
        rate.add(10, 1)
    assert rate.seconds_for(100) == pytest.approx(10, rel=0.01)


async def numbers() -> AsyncGenerator[int]:
    for number in range(3):
        await asyncio.sleep(0)
        yield number


async def test_within_the_time_nothing_changes() -> None:
    for seconds in (0, 60):
        limit = TimeLimit(seconds)
        assert await limit.wait_for(asyncio.sleep(0, "done")) == "done"
        assert [number async for number in limit.limit(numbers())] == [0, 1, 2]


async def test_work_that_takes_too_long_is_cancelled() -> None:
    cancelled = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(OutOfTime, match=r"longer than the 0\.01 s"):
        await TimeLimit(0.01).wait_for(forever())
    assert cancelled


async def test_a_cancellation_that_becomes_an_answer_is_no_answer() -> None:
    async def swallow() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "Client disconnected"

    with pytest.raises(OutOfTime):
        await TimeLimit(0.01).wait_for(swallow())


async def test_a_timeout_of_the_work_itself_is_not_ours() -> None:
    async def fail() -> None:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        await TimeLimit(60).wait_for(fail())


async def test_a_stream_ends_when_its_time_is_up() -> None:
    closed = []

    async def endless() -> AsyncGenerator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    limited = TimeLimit(0.05).limit(endless())
    assert await anext(limited) == 0
    with pytest.raises(OutOfTime):
        await anext(limited)
    assert closed
