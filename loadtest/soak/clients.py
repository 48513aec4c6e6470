"""Sends the traffic and checks the answers."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from server.soak.tally import ACCEPTED, DIFFERENT, FAILED, LEAKED, Tally
from server.soak.traffic import Act, Doing, Traffic

PATH = "/v1/completions"
# Requests that one client sends at once, now and then.
BURST = 30
_HEADERS = {"Content-Type": "application/json"}
_META_TOKENS = ("<|startthought|>", "<|endthought|>")

Answers = list[str]


class Driver:
    """Clients of one server, whose answers end up in a tally."""

    def __init__(self, http: httpx.AsyncClient, traffic: Traffic, tally: Tally) -> None:
        self._http = http
        self._traffic = traffic
        self._tally = tally
        self._alone: list[Answers] = []

    async def ask_alone(self) -> None:
        """Ask the known requests one after the other, for the answers to compare with.

        Raises `httpx.HTTPError` where the server does not answer them.
        """
        for request in self._traffic.known:
            response = await self._http.post(PATH, json=request)
            if not response.is_success:
                raise httpx.HTTPError(f"{response.status_code} {response.text}")
            self._alone.append(_texts(response.json()))

    async def run(self, clients: int, seconds: float, progress: Callable[[float], None]) -> None:
        """Let the clients do what they do for some time. Those that wait then get their answers."""
        start = time.monotonic()
        end = start + seconds
        tasks = [asyncio.create_task(self._client(number, end)) for number in range(clients)]
        while tasks:
            _, waiting = await asyncio.wait(tasks, timeout=5)
            progress(time.monotonic() - start)
            if not waiting:
                break
        for task in tasks:
            task.result()

    async def _client(self, number: int, end: float) -> None:
        for doing in self._traffic.of_client(number):
            if time.monotonic() >= end:
                return
            copies = BURST if doing.act == Act.BURST else 1
            await asyncio.gather(*(self._do(doing) for _ in range(copies)))

    async def _do(self, doing: Doing) -> None:
        self._tally.sent += 1
        try:
            if doing.act == Act.BAD:
                await self._send_bad(doing)
            elif doing.act == Act.LEAVE_WHOLE:
                await self._leave_whole(doing)
            elif doing.act in (Act.STREAM, Act.LEAVE_STREAM):
                await self._stream(doing)
            else:
                self._judge(doing, await self._post(doing.body))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._tally.fault(FAILED, f"{doing.act}: {error!r}")

    async def _post(self, body: bytes) -> httpx.Response:
        return await self._http.post(PATH, content=body, headers=_HEADERS)

    async def _send_bad(self, doing: Doing) -> None:
        response = await self._post(doing.body)
        if 400 <= response.status_code < 500 and response.json()["error"]["message"]:
            self._tally.bad_refused += 1
        else:
            kind = ACCEPTED if response.is_success else FAILED
            self._tally.fault(kind, f"{response.status_code} {doing.body[:200]!r}")

    async def _leave_whole(self, doing: Doing) -> None:
        try:
            async with asyncio.timeout(doing.patience):
                response = await self._post(doing.body)
        except TimeoutError:
            self._tally.left += 1
        else:
            self._judge(doing, response)

    async def _stream(self, doing: Doing) -> None:
        leave_at = time.monotonic() + doing.patience
        chunks: list[dict[str, Any]] = []
        async with self._http.stream("POST", PATH, content=doing.body, headers=_HEADERS) as it:
            if it.status_code != 200:
                await it.aread()
                self._judge(doing, it)
                return
            async for line in it.aiter_lines():
                if line == "data: [DONE]":
                    self._check(doing, _joined(chunks))
                    return
                if line.startswith("data: "):
                    chunks.append(json.loads(line.removeprefix("data: ")))
                if doing.act == Act.LEAVE_STREAM and time.monotonic() > leave_at:
                    self._tally.left += 1
                    return
        raise ValueError("a stream ended without [DONE]")

    def _judge(self, doing: Doing, response: httpx.Response) -> None:
        if response.status_code == 429 and "Retry-After" in response.headers:
            self._tally.overload_refused += 1
        elif response.status_code == 200:
            self._check(doing, response.json())
        else:
            self._tally.fault(FAILED, f"{doing.act}: {response.status_code} {response.text}")

    def _check(self, doing: Doing, answer: dict[str, Any]) -> None:
        """Check a complete answer."""
        texts = _texts(answer)
        shown = any("thoughts" in choice for choice in answer["choices"])
        if shown and not doing.asks_for_thoughts:
            self._tally.fault(LEAKED, f"{answer}")
        if any(token in text for token in _META_TOKENS for text in texts):
            self._tally.fault(LEAKED, f"{texts}")
        if usage := answer.get("usage"):
            self._tally.visible_tokens += usage["completion_tokens"]
            self._tally.thought_tokens += usage["completion_tokens_details"]["reasoning_tokens"]
        if doing.known is not None:
            self._tally.asked_again += 1
            if texts != self._alone[doing.known]:
                self._tally.fault(DIFFERENT, f"{texts} != {self._alone[doing.known]}")
        self._tally.answered += 1


def _texts(answer: dict[str, Any]) -> Answers:
    choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    return [choice["text"] for choice in choices]


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream's chunks as one answer; raises `ValueError` for one that ended in an error."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        if "error" in chunk:
            raise ValueError(f"a stream ended in {chunk['error']}")
        for choice in chunk["choices"]:
            whole = choices.setdefault(choice["index"], {**choice, "text": ""})
            whole["text"] += choice["text"]
            if "thoughts" in choice:
                whole["thoughts"] = choice["thoughts"]
    return {"choices": list(choices.values())}
