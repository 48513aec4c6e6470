"""The requests of a cell, each by its index in the schedule."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from loadtest.client.answer import Asked, Counting
from loadtest.errors import LoadTestError
from loadtest.traffic.budgets import BudgetMix
from loadtest.traffic.plan import Target
from loadtest.traffic.prompts import PromptPosition, Prompts
from loadtest.traffic.seeds import rng_for

COUNTING_FIELDS: Mapping[Counting, dict[str, Any]] = {
    Counting.TOKEN_IDS: {"stream_options": {"include_usage": True}, "return_token_ids": True},
    Counting.RUNNING_USAGE: {
        "stream_options": {"include_usage": True, "continuous_usage_stats": True}
    },
    Counting.CHUNKS: {"stream_options": {"include_usage": True}},
}
"""Fields with which a server reports what each way of counting needs."""

_RESERVED = {
    "echo": "the prompt would be counted as an answer",
    "messages": "prompts come from --prompts",
    "model": "there is --model",
    "n": "a request is one answer",
    "prompt": "prompts come from --prompts",
    "stream": "times are those of streams",
    "stream_options": "tokens are counted with it",
    "thought_budget": "there is --budgets",
    "thought_threshold": "there is --thresholds",
}
"""Fields that the load tester sets itself, and why a user may not."""


class Turn(NamedTuple):
    """A prompt of a session and its visible answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request ready to be sent."""

    index: int
    measured: bool
    body: bytes
    asked: Asked
    expected: str | None
    text: str
    """The prompt, without earlier turns."""
    turn: int


@dataclass(frozen=True)
class RequestMaker:
    """Makes the requests of one cell: the same request for the same index in every process."""

    target: Target
    model: str
    counting: Counting
    counting_fields: Mapping[str, Any]
    prompts: Prompts
    budgets: BudgetMix
    seed: int
    cell: int
    repeat: int
    salt: str | None = None

    def make(self, index: int, measured: bool, earlier: Sequence[Turn] = ()) -> Request:
        """The request of an index, as the next turn after the earlier ones of its session."""
        rng = rng_for(self.seed, "budget", self.repeat, index)
        budget = self.budgets.draw(rng)
        threshold = None if budget == 0 else self.budgets.threshold
        prompt = self.prompts.at(PromptPosition(self.seed, self.cell, self.repeat, index))
        asked = {"thought_budget": budget, "thought_threshold": threshold}
        thinking = {name: value for name, value in asked.items() if value is not None}
        body = {
            "model": self.model,
            "max_tokens": prompt.max_tokens,
            **self.counting_fields,
            **thinking,
            # Thoughts are sampled: with a seed they are the same in every run.
            **({"seed": rng.getrandbits(31)} if thinking else {}),
            **({} if self.salt is None else {"cache_salt": self.salt}),
            **request_fields(self.target, prompt.text, earlier),
        }
        if self.budgets.field is not None:
            self.budgets.field.put_into(body)
        return Request(
            index=index,
            measured=measured,
            body=json.dumps(body).encode(),
            asked=_asked(body),
            expected=prompt.expected,
            text=prompt.text,
            turn=len(earlier),
        )


def _asked(body: Mapping[str, Any]) -> Asked:
    return Asked(
        tokens=body["max_tokens"],
        budget=body.get("thought_budget"),
        threshold=body.get("thought_threshold"),
        thought_limit=body.get("thinking_token_budget"),
    )


def prompt_fields(target: Target, text: str, earlier: Sequence[Turn] = ()) -> dict[str, Any]:
    """The prompt of a completion, or the messages of a chat, with earlier turns before it."""
    if not target.chat:
        return {"prompt": "".join(f"{turn.prompt}{turn.answer}\n" for turn in earlier) + text}
    said = [
        {"role": role, "content": content}
        for turn in earlier
        for role, content in (("user", turn.prompt), ("assistant", turn.answer))
    ]
    return {"messages": [*said, {"role": "user", "content": text}]}


def request_fields(target: Target, text: str, earlier: Sequence[Turn] = ()) -> dict[str, Any]:
    """The prompt, and the fields that all requests to a target have in common. Fields that the user
    adds override the others."""
    return {
        **prompt_fields(target, text, earlier),
        "stream": True,
        "temperature": target.temperature,
        **({"ignore_eos": True} if target.ignore_eos else {}),
        **target.extra_body,
    }


def headers(target: Target) -> dict[str, str]:
    """HTTP headers of every request."""
    key = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    overridden = {name.lower() for name in target.headers}
    kept = {name: value for name, value in key.items() if name.lower() not in overridden}
    return {**kept, **target.headers}


def check_fields(extra_body: Mapping[str, Any], budgets: Sequence[BudgetMix]) -> None:
    """Raise `LoadTestError` for fields that the load tester sets itself."""
    for name in extra_body:
        if name in _RESERVED:
            raise LoadTestError(f"{name} cannot be set in the extra body: {_RESERVED[name]}")
    for mix in budgets:
        name = mix.field.name.partition(".")[0] if mix.field else ""
        if name in _RESERVED or name == "max_tokens":
            why = _RESERVED.get(name, "there is --output-tokens")
            raise LoadTestError(f"{name} cannot be the budget field: {why}")
