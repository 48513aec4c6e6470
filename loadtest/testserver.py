"""A small OpenAI-like server whose every delay is known, for testing the load tester itself.

Its answers are `max_tokens` times "word", sent on a fixed schedule from a process of its own. It
uses no framework, and writes a stream without pauses at once, so that `capacity` measures the
client and not the server. A prompt that begins with `fault:NAME` gets the fault of that name, see
`Fault`; one that begins with `needs:N` is answered with "blur" after fewer than N reasoning tokens.
"""

import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from loadtest.client.exchange import allow_many_connections
from loadtest.sending.interrupts import ignored_interrupts

MODEL = "test"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_DONE = b"data: [DONE]\n\n"


class Fault(StrEnum):
    """What can be wrong with an answer."""

    REFUSED = "refused"
    HTTP = "http"
    DROPPED = "dropped"
    """The connection is closed without an answer."""
    SILENT = "silent"
    """The request is never answered."""
    TRUNCATED = "truncated"
    """The connection closes in the middle of the stream."""
    UNMARKED = "unmarked"
    """The stream ends in order, but without its end mark."""
    UNFINISHED = "unfinished"
    """No finish reason."""
    ERROR = "error"
    """An error in mid-stream."""
    EMPTY = "empty"
    MISCOUNTED = "miscounted"
    """The usage counts one token more than were sent."""
    OVERTHOUGHT = "overthought"
    """One thought token more than allowed."""
    THOUGHTLESS = "thoughtless"
    """No thought tokens."""
    GARBLED = "garbled"
    """An event that is not JSON."""


@dataclass(frozen=True)
class Reasoning:
    """How a server reasons before it answers; `max_tokens` limits both together."""

    tokens: int = 6
    """Of requests that do not ask for another number."""
    field: str = "reasoning_content"
    """In which they are streamed: `tags` for tags in the text (the tags are tokens, too), `hidden`
    for none."""
    efforts: tuple[tuple[str, int], ...] = (("low", 4), ("medium", 16), ("high", 64))
    """Reasoning tokens for each `reasoning_effort`; others are refused."""
    answer: int | None = None
    """Visible tokens after which it stops."""
    inside: bool = True
    """Whether `completion_tokens` includes them."""
    reported: bool = True
    """Whether usage has `reasoning_tokens`."""

    def asked(self, request: dict[str, Any]) -> int:
        """The tokens of a request; raises `KeyError` for an unknown effort."""
        effort = request.get("reasoning_effort")
        tokens = self.tokens if effort is None else dict(self.efforts)[effort]
        return min(tokens, int(request.get("thinking_token_budget", tokens)))


@dataclass(frozen=True)
class Behaviour:
    """How the server answers."""

    first: float = 0.0
    """Seconds from the request to its first token."""
    gap: float = 0.0
    """Seconds from token to token, times the passes that the token takes: its thought's budget + 1;
    with a threshold above 0 one, and as many more where it is thought about."""
    tokens_per_chunk: int = 1
    max_thought_budget: int | None = 16
    """None = a stock server, which knows no thought budgets."""
    default_threshold: float | None = None
    """None = a server without thought thresholds, which refuses requests that have one."""
    gains: tuple[float, ...] = (0.0,)
    """The gain in nats that is expected of a thought before each token, again and again."""
    counts_passes: bool = True
    """Whether a server with thresholds says how often it thought, and in how many passes."""
    counts: bool = True
    """Whether chunks carry token ids and usage, where asked."""
    volunteers_usage: bool = False
    """Whether every chunk carries usage, asked or not."""
    refuses: frozenset[str] = frozenset()
    """Fields with which a request is refused."""
    tokenizes: bool = False
    template_tokens: int = 3
    """Added to every chat's prompt."""
    stall: tuple[int, float] | None = None
    """At which request, counted from 1, the server blocks, and for how many seconds."""
    die_after: int | None = None
    """Requests after which the process ends."""
    api_key: str | None = None
    slots: int | None = None
    """Answers at once; more requests wait."""
    reasoning: Reasoning | None = None

    @property
    def thinks(self) -> bool:
        return self.max_thought_budget is not None


@contextmanager
def running(behaviour: Behaviour = Behaviour()) -> Iterator[str]:
    """Serve for the length of a `with` block, on a free port; gives the URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(behaviour, theirs), daemon=True)
    with ignored_interrupts():
        process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(behaviour: Behaviour, ready: Connection) -> None:
    allow_many_connections()
    uvloop.run(_Server(behaviour).serve(ready))


class _Server:
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._completions = self._running = 0
        self._slots = asyncio.Semaphore(behaviour.slots or 1_000_000)

    async def serve(self, ready: Connection) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _connection(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one request after the other until the client, or a fault, closes."""
        # Raised when the client has disconnected; RuntimeError by uvloop, in the middle of a write.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            while await self._exchange(reader, writer):
                await writer.drain()
        writer.close()

    async def _exchange(self, reader: StreamReader, writer: StreamWriter) -> bool:
        """One request and its answer; whether the connection can be used again."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split()[1]
        key = self._behaviour.api_key
        if key is not None and headers.get("authorization") != f"bearer {key}".lower():
            _respond(writer, 401, {"error": {"message": "wrong API key"}})
        elif path == "/v1/models":
            _respond(writer, 200, self._models())
        elif path == "/tokenize" and self._behaviour.tokenizes:
            _respond(writer, 200, {"count": self._prompt_tokens(json.loads(body))})
        elif path == "/metrics":
            _respond(writer, 200, self._metrics())
        elif path in ("/v1/completions", "/v1/chat/completions"):
            return await self._complete(json.loads(body), reader, writer, chat="chat" in path)
        else:
            _respond(writer, 404, {"error": {"message": f"no {path} here"}})
        return True

    def _prompt_tokens(self, request: dict[str, Any]) -> int:
        """Each word is a token."""
        added = self._behaviour.template_tokens if "messages" in request else 0
        said = [_content(message) for message in request.get("messages", ())]
        return added + len(" ".join(said or [_prompt(request)]).split())

    def _metrics(self) -> str:
        return (
            f"vllm:request_success_total {self._completions}\n"
            f'vllm:num_requests_running{{engine="0"}} {self._running}\n'
            'vllm:num_requests_waiting{engine="0"} 0\n'
        )

    def _models(self) -> dict[str, Any]:
        model: dict[str, Any] = {"id": MODEL, "owned_by": "vllm" if self._behaviour.counts else ""}
        if self._behaviour.max_thought_budget is not None:
            model["quiet_star"] = {"max_thought_budget": self._behaviour.max_thought_budget}
        if self._behaviour.default_threshold is not None:
            threshold = self._behaviour.default_threshold
            model["quiet_star"] |= {"gate": "learned", "default_thought_threshold": threshold}
        return {"object": "list", "data": [model]}

    async def _complete(
        self, request: dict[str, Any], reader: StreamReader, writer: StreamWriter, chat: bool
    ) -> bool:
        if not request.get("stream"):
            usage = {"prompt_tokens": self._prompt_tokens(request), "completion_tokens": 1}
            _respond(writer, 200, {"choices": [], "usage": usage})
            return True
        self._count()
        text = _prompt(request)
        name = text.split()[0].removeprefix("fault:") if text.startswith("fault:") else None
        fault = Fault(name) if name else None
        reasoning = self._behaviour.reasoning
        if reasoning and request.get("reasoning_effort", "low") not in dict(reasoning.efforts):
            _respond(writer, 400, {"error": {"message": "no such reasoning_effort"}})
        elif request["model"] != MODEL:
            _respond(writer, 404, {"error": {"message": f"no model {request['model']}"}})
        elif "thought_threshold" in request and self._behaviour.default_threshold is None:
            _respond(writer, 400, {"error": {"message": "no field thought_threshold"}})
        elif unknown := sorted(self._behaviour.refuses & request.keys()):
            _respond(writer, 400, {"error": {"message": f"no field {', '.join(unknown)}"}})
        elif fault is Fault.REFUSED:
            _respond(writer, 429, {"error": {"message": "too many requests"}})
        elif fault is Fault.HTTP:
            _respond(writer, 500, {"error": {"message": "it broke"}})
        elif fault is Fault.DROPPED:
            return False
        elif fault is Fault.SILENT:
            await asyncio.Event().wait()
        else:
            self._running += 1
            try:
                async with self._slots:
                    answer = self._answer(request, text, fault, chat)
                    # A client that has left meanwhile takes no slot.
                    return not reader.at_eof() and await self._write_stream(answer, writer)
            finally:
                self._running -= 1
        return True

    def _answer(
        self, request: dict[str, Any], prompt: str, fault: Fault | None, chat: bool
    ) -> "_Stream":
        behaviour = self._behaviour
        options = request.get("stream_options", {})
        limit = request.get("max_completion_tokens") or request.get("max_tokens", 16)
        most = 0 if fault is Fault.EMPTY else limit
        reasoned = min(most, behaviour.reasoning.asked(request)) if behaviour.reasoning else 0
        answer = behaviour.reasoning.answer if behaviour.reasoning else None
        visible = most - reasoned if answer is None else min(answer, most - reasoned)
        needs = prompt.partition(" ")[0].removeprefix("needs:")
        return _Stream(
            behaviour=behaviour,
            fault=fault,
            chat=chat,
            reasoned=reasoned,
            prompt_tokens=self._prompt_tokens(request),
            tokens=reasoned + visible,
            finish_reason="length" if reasoned + visible == most else "stop",
            word=" blur" if needs.isdigit() and reasoned < int(needs) else " word",
            budget=request.get("thought_budget", 0) if behaviour.thinks else 0,
            threshold=request.get("thought_threshold", behaviour.default_threshold),
            with_usage=behaviour.volunteers_usage or options.get("include_usage", False),
            with_running_usage=behaviour.volunteers_usage
            or (behaviour.counts and options.get("continuous_usage_stats", False)),
            with_ids=behaviour.counts and request.get("return_token_ids", False),
        )

    def _count(self) -> None:
        self._completions += 1
        if self._behaviour.stall is not None:
            request, seconds = self._behaviour.stall
            if self._completions == request:
                time.sleep(
                    seconds
                )  # blocks the loop: no request is answered, no connection accepted
        if self._completions == self._behaviour.die_after:
            os._exit(1)

    async def _write_stream(self, stream: "_Stream", writer: StreamWriter) -> bool:
        writer.write(_HEAD)
        start = time.monotonic()
        waiting: list[bytes] = []
        for due, event in _events(stream):
            # Due times count from the start, so that delays do not add up. No event is early,
            # though uvloop's timers may be.
            while (pause := start + due - time.monotonic()) > 0:
                _write_chunk(writer, waiting)
                await asyncio.sleep(pause)
            waiting.append(event)
        _write_chunk(writer, waiting)
        if stream.fault is Fault.TRUNCATED:
            return False
        writer.write(b"0\r\n\r\n")
        return True


@dataclass(frozen=True)
class _Stream:
    """The events of one answer and when they are due."""

    behaviour: Behaviour
    fault: Fault | None
    chat: bool
    reasoned: int
    prompt_tokens: int
    tokens: int
    """Reasoning and visible ones."""
    finish_reason: str
    word: str
    budget: int
    threshold: float | None
    with_usage: bool
    with_running_usage: bool
    with_ids: bool

    def events(self) -> Iterator[tuple[float, bytes]]:
        """Seconds from the start, and the event as it is sent."""
        for start, end in self._chunks():
            if start >= self.tokens // 2 and self.fault in (Fault.TRUNCATED, Fault.ERROR):
                if self.fault is Fault.ERROR:
                    yield self._due(start), _event({"error": {"message": "it broke"}})
                return
            # A chunk leaves when its last token is there.
            yield self._due(end - 1), self._chunk(start, end)
        if self.fault is Fault.GARBLED:
            yield 0.0, b"data: {not json\n\n"
        if self.tokens == 0 or (self._is_hidden and self.tokens == self.reasoned):
            yield self._due(self.tokens - 1), self._chunk(self.tokens, self.tokens)
        if self.with_usage:
            usage = self._usage(self.tokens)
            last: dict[str, Any] = {"object": self._object, "choices": [], "usage": usage}
            if self.threshold is not None and self.behaviour.counts_passes:
                passes = sum(map(self._passes, range(self.tokens)))
                last["quiet_star"] = {"thoughts": self._thoughts(self.tokens), "passes": passes}
            yield 0.0, _event(last)
        if self.fault is not Fault.UNMARKED:
            yield 0.0, _DONE

    @property
    def _object(self) -> str:
        """Which some clients read."""
        return "chat.completion.chunk" if self.chat else "text_completion"

    @property
    def _is_hidden(self) -> bool:
        return self.behaviour.reasoning is not None and self.behaviour.reasoning.field == "hidden"

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """First and last token of each, reasoning apart from the visible ones."""
        size = self.behaviour.tokens_per_chunk
        shown = range(0, 0 if self._is_hidden else self.reasoned, size)
        yield from ((start, min(start + size, self.reasoned)) for start in shown)
        visible = range(self.reasoned, self.tokens, size)
        yield from ((start, min(start + size, self.tokens)) for start in visible)

    def _due(self, token: int) -> float:
        passes = sum(self._passes(each) for each in range(1, token + 1))
        return self.behaviour.first + self.behaviour.gap * passes

    def _passes(self, token: int) -> int:
        if not (self.budget and self.threshold):
            return self.budget + 1
        return 1 + (self.budget + 1) * self._thinks(token)

    def _thinks(self, token: int) -> bool:
        gains = self.behaviour.gains
        return self.budget > 0 and (
            not self.threshold or gains[token % len(gains)] > self.threshold
        )

    def _thoughts(self, tokens: int) -> int:
        return sum(map(self._thinks, range(tokens)))

    def _chunk(self, start: int, end: int) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        texts = self._texts(start, end)
        choice |= {"delta": texts} if self.chat else texts
        if self.with_ids:
            choice["token_ids"] = [1] * (end - start)
        if end == self.tokens and self.fault is not Fault.UNFINISHED:
            choice["finish_reason"] = self.finish_reason
        chunk: dict[str, Any] = {"object": self._object, "choices": [choice]}
        if self.with_running_usage:
            chunk["usage"] = self._usage(end)
        if self.behaviour.thinks and start == 0:
            chunk["quiet_star"] = {"thought_budget": self.budget}
            if self.threshold is not None:
                chunk["quiet_star"]["thought_threshold"] = self.threshold
        return _event(chunk)

    def _texts(self, start: int, end: int) -> dict[str, str]:
        visible = "content" if self.chat else "text"
        reasoning = self.behaviour.reasoning
        if reasoning is None or start >= self.reasoned or self._is_hidden:
            return {visible: self.word * (end - start)}
        if reasoning.field != "tags":
            return {reasoning.field: " hm" * (end - start)}
        last = self.reasoned - 1
        tags = {0: "<think>", last: "</think>"}
        return {visible: "".join(tags.get(token, " hm") for token in range(start, end))}

    def _usage(self, tokens: int) -> dict[str, Any]:
        reasoning = self.behaviour.reasoning
        reasoned = min(tokens, self.reasoned)
        counted = tokens if reasoning is None or reasoning.inside else tokens - reasoned
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": counted,
        }
        if reasoning is not None and reasoning.reported:
            usage["completion_tokens_details"] = {"reasoning_tokens": reasoned}
        if self.fault is Fault.MISCOUNTED and tokens == self.tokens:
            usage["completion_tokens"] += 1
        if self.behaviour.thinks:
            thoughts = self.budget * self._thoughts(tokens)
            thoughts = 0 if self.fault is Fault.THOUGHTLESS else thoughts
            thoughts += self.fault is Fault.OVERTHOUGHT
            usage["thought_tokens"] = thoughts
        return usage


@functools.cache
def _events(stream: _Stream) -> list[tuple[float, bytes]]:
    """Cached: the same answers are given again and again."""
    return list(stream.events())


def _prompt(request: dict[str, Any]) -> str:
    return _content(request["messages"][-1]) if "messages" in request else str(request["prompt"])


def _content(message: dict[str, Any]) -> str:
    """The text of a chat's message, which may be in parts."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def _write_chunk(writer: StreamWriter, waiting: list[bytes]) -> None:
    """Send the waiting events as one chunk of the transfer encoding."""
    if waiting:
        data = b"".join(waiting)
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        waiting.clear()


def _respond(writer: StreamWriter, status: int, content: dict[str, Any] | str) -> None:
    body = (content if isinstance(content, str) else json.dumps(content)).encode()
    writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
