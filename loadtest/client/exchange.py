"""One request and its answer.

With aiohttp, whose client takes a ninth of the CPU time of httpx per stream.
"""

import asyncio
import json
import resource
from collections.abc import Callable
from typing import NamedTuple

import aiohttp

from loadtest.client.answer import Answer, Counting, Problem, find_problem
from loadtest.client.requests import Request
from loadtest.client.sse import EventParser
from loadtest.records import Failure

_REFUSALS = (429, 503)
# Shorter than uvicorn's 5 s, so that no connection is used that the server is about to close.
_KEEPALIVE_SECONDS = 4.0

Clock = Callable[[], float]


class Exchange(NamedTuple):
    """The result of a request. Times are on the caller's clock."""

    sent: float
    finished: float
    answer: Answer
    problem: Problem | None
    status: int | None


def allow_many_connections() -> None:
    """Raise the limit of open files to its maximum: each connection is one, and the usual limit,
    1024, would cause failures that are not the server's."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_session(headers: dict[str, str]) -> aiohttp.ClientSession:
    """A session with as many connections as requests in flight, which are kept for later ones."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None),  # each exchange has its own
        headers={
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # decompression would take CPU time of the client
            **headers,
        },
    )


async def exchange(
    session: aiohttp.ClientSession,
    url: str,
    request: Request,
    counting: Counting,
    seconds: float,
    clock: Clock,
) -> Exchange:
    """Send a request and read its answer to the end, within `seconds`. Faults of the server and of
    the network are returned as the exchange's problem, not raised."""
    answer = Answer(counting)
    sent = clock()
    status: int | None = None

    def outcome(problem: Problem | None) -> Exchange:
        return Exchange(sent, clock(), answer, problem, status)

    try:
        async with asyncio.timeout(seconds), session.post(url, data=request.body) as response:
            status = response.status
            if status != 200:
                return outcome(_bad_status(status, await response.text(errors="replace")))
            parser = EventParser()
            async for received in response.content.iter_any():
                now = clock()
                for event in parser.feed(received):
                    answer.add(event, now)
    except TimeoutError:
        return outcome(Problem(Failure.TIMEOUT, f"not finished {seconds:g} s after it was sent"))
    except aiohttp.ClientError as error:
        return outcome(_broken(status, answer, error))
    answer.complete()
    return outcome(find_problem(answer, request.asked))


def _bad_status(status: int, body: str) -> Problem:
    failure = Failure.REFUSED if status in _REFUSALS else Failure.HTTP
    return Problem(failure, f"{status}: {error_message(body)}")


def _broken(status: int | None, answer: Answer, error: aiohttp.ClientError) -> Problem:
    if answer.error is not None:
        return Problem(Failure.ERROR_IN_STREAM, answer.error)
    failure = Failure.CONNECTION if status is None else Failure.TRUNCATED
    return Problem(failure, str(error) or repr(error))


def error_message(body: str) -> str:
    """The message of an OpenAI-like error response, or the beginning of any other body."""
    try:
        content = json.loads(body)
    except ValueError:
        return body[:500]
    error = content.get("error", content) if isinstance(content, dict) else content
    return str(error.get("message", error) if isinstance(error, dict) else error)
