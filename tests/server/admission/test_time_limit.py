"""How long one request may take."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from server.admission.time_limit import TimeLimit
from server.errors import OutOfTime


async def numbers() -> AsyncGenerator[int]:
    for number in range(3):
        await asyncio.sleep(0)
        yield number


async def test_work_within_the_limit_is_unchanged() -> None:
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


async def test_a_cancellation_that_becomes_a_response_is_a_timeout() -> None:
    async def swallow() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "Client disconnected"

    with pytest.raises(OutOfTime):
        await TimeLimit(0.01).wait_for(swallow())


async def test_a_timeout_raised_by_the_work_itself_is_passed_on() -> None:
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


async def test_what_is_sent_counts_and_has_two_seconds_when_the_time_is_up() -> None:
    limit = TimeLimit(0.01)
    with pytest.raises(OutOfTime):
        await limit.wait_for(asyncio.Event().wait())
    assert await limit.wait_for_sending(asyncio.sleep(0.01, "sent")) == "sent"
    with pytest.raises(OutOfTime):
        await limit.wait_for_sending(asyncio.Event().wait())
    assert await TimeLimit(0).wait_for_sending(asyncio.sleep(0, "sent")) == "sent"
