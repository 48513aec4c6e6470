"""Checks grammars of requests (JSON schemas, regular expressions, choices, …) within a size and a
time, before the engine compiles them.

`engine.grammar_process` says why, and how.
"""

import asyncio
import os
import pickle
import signal
import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

from server.engine.grammar_process import (
    GrammarAnswer,
    GrammarJob,
    TokenConstraints,
    compile_grammars,
)
from server.errors import BadRequest
from server.vllm_api import StructuredOutputsParams, VllmConfig

# The longest grammar, in bytes.
MAX_BYTES = 256 << 10
# Most grammars are quick, and pass those that are not: no grammar waits for more than a second each
# of those that came before it.
_QUICK_SECONDS = 0.5
# As many as the engine compiles at a time, so that no queue of them grows there.
_AT_A_TIME = max(1, ((os.cpu_count() or 1) + 1) // 2)
# How many grammars are known to be good; clients send the same ones again and again.
_KNOWN = 256


class GrammarChecker:
    """Says of grammars whether they compile within `seconds`, and in what form vLLM takes them."""

    def __init__(self, control: socket.socket, seconds: float) -> None:
        """`control`: of the process that compiles."""
        self._control = control
        self._seconds = seconds
        self._quick = asyncio.Semaphore(_AT_A_TIME)
        self._slow = asyncio.Semaphore(_AT_A_TIME)
        self._known: OrderedDict[bytes, StructuredOutputsParams] = OrderedDict()

    async def check(
        self, grammar: StructuredOutputsParams, constraints: TokenConstraints
    ) -> StructuredOutputsParams:
        """The grammar as vLLM has validated it, beside other constraints of its request. Raises
        `BadRequest`."""
        key = pickle.dumps((grammar, constraints))
        if len(pickle.dumps(grammar)) > MAX_BYTES:
            raise BadRequest(
                f"the grammar has more than {MAX_BYTES} bytes, which this server takes at most",
                "structured_outputs",
            )
        if key not in self._known:
            answer = await self._compile(grammar, constraints)
            if answer.grammar is None:
                raise BadRequest(answer.message, "structured_outputs")
            self._known[key] = answer.grammar
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    async def _compile(
        self, grammar: StructuredOutputsParams, constraints: TokenConstraints
    ) -> GrammarAnswer:
        lanes = ((self._quick, min(_QUICK_SECONDS, self._seconds)), (self._slow, self._seconds))
        for lane, seconds in lanes:
            async with lane:
                answer = await self._run(GrammarJob(grammar, constraints, seconds))
            if answer is not None:
                return answer
        return GrammarAnswer(
            None,
            f"the grammar is too complex: it does not compile in the {self._seconds:g} s and the "
            "memory that this server gives it (a regular expression with large repetitions, a "
            "schema with many alternatives in each other?)",
        )

    async def _run(self, job: GrammarJob) -> GrammarAnswer | None:
        """The answer of a process of its own; None if that ended without one."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"."], [theirs.fileno()])
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        process_id = None
        try:
            process_id = int(await reader.readline() or 0)
            writer.write(pickle.dumps(job))
            answer = await reader.read()
            process_id = None
        finally:
            # The client has left: nobody wants the answer any more.
            if process_id:
                os.kill(process_id, signal.SIGKILL)
            writer.close()
        return pickle.loads(answer) if answer else None


@contextmanager
def grammar_checker(config: VllmConfig, seconds: float) -> Iterator[GrammarChecker]:
    """A checker for the length of a `with` block, and its process, which is forked here: it shares
    its memory with the server, and must be before there are threads."""
    ours, theirs = socket.socketpair()
    process = get_context("fork").Process(
        target=compile_grammars, args=(theirs, config), daemon=True
    )
    process.start()
    theirs.close()
    try:
        with ours:
            yield GrammarChecker(ours, seconds)
    finally:
        process.kill()
