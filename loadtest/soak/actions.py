"""What the clients of a soak do, drawn at random from a seed."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_WORDS = (
    *("Ann", "Ben", "has", "the", "dial", "at", "two", "apples", "and", "sells", "half", "on"),
    *("Monday", "while", "Cal", "eats", "8", "plums"),
)
_BUDGET_CHOICES = (0, 0, 1, 2, 4, 8, 16)


class ActionKind(StrEnum):
    WHOLE = "whole"
    """A request without streaming."""
    STREAM = "stream"
    LEAVE_WHOLE = "leave whole"
    """The client disconnects while it waits for an answer, ..."""
    LEAVE_STREAM = "leave stream"
    """... or in the middle of a stream."""
    BAD = "bad"
    """A request that no server may accept."""
    BURST = "burst"
    """Many copies of a request at once."""


_WEIGHTS = {
    ActionKind.WHOLE: 30,
    ActionKind.STREAM: 30,
    ActionKind.LEAVE_WHOLE: 8,
    ActionKind.LEAVE_STREAM: 12,
    ActionKind.BAD: 15,
    ActionKind.BURST: 5,
}
# Bad bodies, and bad fields that are added to a good request.
_BROKEN = (b"", b"{", b"null", b'{"prompt": "\xff"}', b'{"prompt": ' + b"[" * 5000)
_BAD_FIELDS: tuple[dict[str, Any], ...] = (
    {"thought_budget": -1},
    {"thought_budget": 10**9},
    {"thought_budget": "four"},
    {"thought_buget": 4},
    {"prompt": ""},
    {"prompt": [-1]},
    {"max_tokens": 0},
    {"temperature": -1},
    {"n": 0},
    {"top_p": 7},
    {"logit_bias": {"x": 1}},
    {"stop": 5},
)


@dataclass(frozen=True)
class Action:
    """One thing that a client does."""

    kind: ActionKind
    body: bytes
    asks_for_thoughts: bool = False
    patience: float = 0.0
    """Seconds after which the client leaves, if this is what it does."""
    known: int | None = None
    """The number of the known request that this one repeats, if any."""


@dataclass(frozen=True)
class ActionPlan:
    """All actions for one seed and server."""

    model: str
    max_budget: int
    shows_thoughts: bool
    seed: int
    num_known: int = 24
    known: list[dict[str, Any]] = field(init=False)
    """Requests that are sent one by one at the start, for answers to compare with."""

    def __post_init__(self) -> None:
        rng = random.Random(f"{self.seed} known")
        object.__setattr__(self, "known", [self._request(rng) for _ in range(self.num_known)])

    def of_client(self, client: int) -> Iterator[Action]:
        """The actions of one client, without end."""
        rng = random.Random(f"{self.seed} client {client}")
        while True:
            (kind,) = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            yield self._action(kind, rng)

    def _action(self, kind: ActionKind, rng: random.Random) -> Action:
        if kind == ActionKind.BAD:
            return Action(kind, self._bad_body(rng))
        known = rng.randrange(self.num_known) if rng.random() < 0.5 else None
        request = self._request(rng) if known is None else dict(self.known[known])
        request["stream"] = kind in (ActionKind.STREAM, ActionKind.LEAVE_STREAM)
        if kind in (ActionKind.LEAVE_WHOLE, ActionKind.LEAVE_STREAM):
            known = None
            request["max_tokens"] = 400
        asks = self.shows_thoughts and rng.random() < 0.3
        if asks:
            request["return_thoughts"] = True
        patience = rng.uniform(0.0, 1.5)
        return Action(kind, json.dumps(request).encode(), asks, patience, known)

    def _request(self, rng: random.Random) -> dict[str, Any]:
        budgets = [budget for budget in _BUDGET_CHOICES if budget <= self.max_budget]
        request: dict[str, Any] = {
            "model": self.model,
            "prompt": " ".join(rng.choices(_WORDS, k=rng.randint(1, 60))),
            "max_tokens": rng.randint(1, 32),
            "temperature": rng.choice([0, 1]),
            "seed": rng.randrange(1000),
            "ignore_eos": True,
            "thought_budget": rng.choice(budgets),
        }
        if request["temperature"] > 0:
            request["n"] = rng.choice([1, 1, 2])
        if rng.random() < 0.2:
            request["thinking_token_budget"] = rng.randint(0, 40)
        return request

    def _bad_body(self, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return rng.choice(_BROKEN)
        return json.dumps(self._request(rng) | rng.choice(_BAD_FIELDS)).encode()
