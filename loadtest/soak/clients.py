"""The clients of a soak: they do what the plan says and check the answers."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from loadtest.soak.actions import Action, ActionKind, ActionPlan
from loadtest.soak.tally import ACCEPTED, DIFFERENT, FAILED, LEAKED, Tally

_PATH = "/v1/completions"
# Copies of a request that one client sends at once, now and then.
_BURST = 30
_PROGRESS_SECONDS = 5
_HEADERS = {"Content-Type": "application/json"}
_META_TOKENS = ("<|startthought|>", "<|endthought|>")

Answers = list[str]


class SoakClients:
    """Clients of one server, whose requests are counted in a tally."""

    def __init__(self, http: httpx.AsyncClient, plan: ActionPlan, tally: Tally) -> None:
        self._http = http
        self._plan = plan
        self._tally = tally
        self._alone: list[Answers] = []
        self._stopped = False

    async def ask_alone(self) -> None:
        """Send the known requests one by one and keep the answers to compare with.

        Raises `httpx.HTTPError` where the server does not answer them.
        """
        self._alone = []
        for request in self._plan.known:
            response = await self._http.post(_PATH, json=request)
            if not response.is_success:
                raise httpx.HTTPError(f"{response.status_code} {response.text}")
            self._alone.append(_texts(response.json()))

    async def run(self, clients: int, seconds: float, progress: Callable[[float], None]) -> None:
        """Let so many clients act for some time, and wait for the last answers."""
        start = time.monotonic()
        end = start + seconds
        tasks = [asyncio.create_task(self._client(number, end)) for number in range(clients)]
        try:
            while tasks:
                _, waiting = await asyncio.wait(tasks, timeout=_PROGRESS_SECONDS)
                progress(time.monotonic() - start)
                if not waiting:
                    break
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            task.result()

    def stop(self) -> None:
        """Begin nothing new; may be called from another thread."""
        self._stopped = True

    async def _client(self, number: int, end: float) -> None:
        for action in self._plan.of_client(number):
            if self._stopped or time.monotonic() >= end:
                return
            copies = _BURST if action.kind == ActionKind.BURST else 1
            await asyncio.gather(*(self._do(action) for _ in range(copies)))

    async def _do(self, action: Action) -> None:
        self._tally.sent += 1
        try:
            if action.kind == ActionKind.BAD:
                await self._send_bad(action)
            elif action.kind == ActionKind.LEAVE_WHOLE:
                await self._leave_whole(action)
            elif action.kind in (ActionKind.STREAM, ActionKind.LEAVE_STREAM):
                await self._stream(action)
            else:
                self._check_response(action, await self._post(action.body))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._tally.fault(FAILED, f"{action.kind}: {error!r}")

    async def _post(self, body: bytes) -> httpx.Response:
        return await self._http.post(_PATH, content=body, headers=_HEADERS)

    async def _send_bad(self, action: Action) -> None:
        response = await self._post(action.body)
        if 400 <= response.status_code < 500 and response.json()["error"]["message"]:
            self._tally.bad_refused += 1
        else:
            kind = ACCEPTED if response.is_success else FAILED
            self._tally.fault(kind, f"{response.status_code} {action.body[:200]!r}")

    async def _leave_whole(self, action: Action) -> None:
        try:
            async with asyncio.timeout(action.patience):
                response = await self._post(action.body)
        except TimeoutError:
            self._tally.left += 1
        else:
            self._check_response(action, response)

    async def _stream(self, action: Action) -> None:
        leave_at = time.monotonic() + action.patience
        chunks: list[dict[str, Any]] = []
        request = self._http.stream("POST", _PATH, content=action.body, headers=_HEADERS)
        async with request as response:
            if response.status_code != 200:
                await response.aread()
                self._check_response(action, response)
                return
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    self._check_answer(action, _joined(chunks))
                    return
                if line.startswith("data: "):
                    chunks.append(json.loads(line.removeprefix("data: ")))
                if action.kind == ActionKind.LEAVE_STREAM and time.monotonic() > leave_at:
                    self._tally.left += 1
                    return
        raise ValueError("a stream ended without [DONE]")

    def _check_response(self, action: Action, response: httpx.Response) -> None:
        if response.status_code == 429 and "Retry-After" in response.headers:
            self._tally.overload_refused += 1
        elif response.status_code == 200:
            self._check_answer(action, response.json())
        else:
            self._tally.fault(FAILED, f"{action.kind}: {response.status_code} {response.text}")

    def _check_answer(self, action: Action, answer: dict[str, Any]) -> None:
        """Check a complete answer: thoughts, tokens, and equality with the one given alone."""
        texts = _texts(answer)
        shown = any("thoughts" in choice for choice in answer["choices"])
        if shown and not action.asks_for_thoughts:
            self._tally.fault(LEAKED, f"{answer}")
        if any(token in text for token in _META_TOKENS for text in texts):
            self._tally.fault(LEAKED, f"{texts}")
        if usage := answer.get("usage"):
            thoughts, visible = _thoughts_and_visible(usage)
            self._tally.visible_tokens += visible
            self._tally.thought_tokens += thoughts
        if action.known is not None:
            self._tally.asked_again += 1
            if texts != self._alone[action.known]:
                self._tally.fault(DIFFERENT, f"{texts} != {self._alone[action.known]}")
        self._tally.answered += 1


def _thoughts_and_visible(usage: dict[str, Any]) -> tuple[int, int]:
    """Tokens of each kind, which a server counts apart, or as OpenAI does (`--usage openai`)."""
    completion: int = usage["completion_tokens"]
    if "thought_tokens" in usage:
        return usage["thought_tokens"], completion
    thoughts: int = usage["completion_tokens_details"]["reasoning_tokens"]
    return thoughts, completion - thoughts


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
