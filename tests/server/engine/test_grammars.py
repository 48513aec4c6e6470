"""Grammars, compiled by a process of their own that is limited and can be stopped."""

import asyncio
import json
import multiprocessing
import socket
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
import pytest

from server.engine.grammar_process import TokenConstraints
from server.engine.grammars import MAX_BYTES, GrammarChecker, grammar_checker
from server.errors import BadRequest
from server.vllm_api import AsyncEngineArgs, StructuredOutputsParams
from tests.support.servers import DEMO

pytestmark = pytest.mark.skipif(not psutil.LINUX, reason="forks")
# Compiles for a minute or so.
SLOW = StructuredOutputsParams(
    json={
        "type": "object",
        "properties": {
            f"p{number}": {"type": "string", "pattern": f"^[a-z]{{1,40}}[0-9]*{number}$"}
            for number in range(4000)
        },
    }
)
ANY = TokenConstraints()
ALL_BLOCKED = TokenConstraints(None, frozenset(range(10_000)))


@pytest.fixture(scope="module")
def control() -> Iterator[socket.socket]:
    """Of the process that compiles."""
    arguments = AsyncEngineArgs(model=str(DEMO))
    arguments.structured_outputs_config.backend = "xgrammar"
    with grammar_checker(arguments.create_engine_config(), seconds=0) as checker:
        yield checker._control


def compiling() -> list[psutil.Process]:
    """The processes that compile a grammar each, below the one that all are forked from."""
    forked = multiprocessing.active_children()
    return [it for child in forked for it in psutil.Process(child.pid).children()]


@pytest.mark.parametrize("seconds", [0, 600])
async def test_a_good_grammar_is_returned_as_vllm_takes_it(
    control: socket.socket, seconds: float
) -> None:
    checker = GrammarChecker(control, seconds)
    for _ in range(2):
        checked = await checker.check(StructuredOutputsParams(choice=["yes", "no"]), ANY)
        assert checked._backend == "xgrammar"
        assert checked.grammar is not None
        assert checked.choice is None


SHORT_TEXT = {"type": "string", "maxLength": 5}
TAG = {"type": "json_schema", "json_schema": SHORT_TEXT}


@pytest.mark.parametrize(
    "grammar",
    [
        StructuredOutputsParams(json=SHORT_TEXT),
        StructuredOutputsParams(json=json.dumps(SHORT_TEXT)),
        StructuredOutputsParams(
            structural_tag=json.dumps({"type": "structural_tag", "format": TAG})
        ),
    ],
)
async def test_strings_of_bounded_length_are_without_control_characters(
    control: socket.socket, grammar: StructuredOutputsParams
) -> None:
    checked = await GrammarChecker(control, 600).check(grammar, ANY)
    text = json.dumps(checked.json) if checked.json else str(checked.structural_tag)
    assert "maxLength" not in text
    assert r"u0000-" in text


@pytest.mark.parametrize(
    ("grammar", "constraints", "message"),
    [
        (StructuredOutputsParams(regex="("), ANY, "regex"),
        (StructuredOutputsParams(choice=["a" * MAX_BYTES]), ANY, f"more than {MAX_BYTES} bytes"),
        (StructuredOutputsParams(json={"$ref": "#"}), ANY, "allows no text"),
        (StructuredOutputsParams(regex="a"), TokenConstraints(frozenset()), "no token is left"),
        (StructuredOutputsParams(regex="a"), ALL_BLOCKED, "no token is left"),
    ],
)
async def test_what_is_wrong_with_a_grammar_is_said(
    control: socket.socket,
    grammar: StructuredOutputsParams,
    constraints: TokenConstraints,
    message: str,
) -> None:
    with pytest.raises(BadRequest, match=message):
        await GrammarChecker(control, 600).check(grammar, constraints)


async def test_a_grammar_that_takes_too_long_is_refused_and_not_compiled_on(
    control: socket.socket,
) -> None:
    with pytest.raises(BadRequest, match=r"does not compile in the 0\.3 s"):
        await GrammarChecker(control, 0.3).check(SLOW, ANY)
    while compiling():  # noqa: ASYNC110  # for a minute, unless it is ended
        await asyncio.sleep(0.01)


async def test_a_grammar_that_nobody_wants_any_more_is_not_compiled_on(
    control: socket.socket,
) -> None:
    checking = asyncio.ensure_future(GrammarChecker(control, 600).check(SLOW, ANY))
    while not compiling():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    checking.cancel()
    while compiling():  # noqa: ASYNC110  # for ten minutes, unless it is ended
        await asyncio.sleep(0.01)
