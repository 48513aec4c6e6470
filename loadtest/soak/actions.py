"""What clients do, drawn at random from a seed."""

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


class Act(StrEnum):
    WHOLE = "whole"
    STREAM = "stream"
    LEAVE_WHOLE = "leave whole"
    LEAVE_STREAM = "leave stream"
    BAD = "bad"
    BURST = "burst"


_WEIGHTS = {
    Act.WHOLE: 30,
    Act.STREAM: 30,
    Act.LEAVE_WHOLE: 8,
    Act.LEAVE_STREAM: 12,
    Act.BAD: 15,
    Act.BURST: 5,
}
# Bodies that no server may accept; the second ones are fields added to a good request.
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
class Doing:
    """One thing that a client does. `patience`: seconds until it leaves, if it does."""

    act: Act
    body: bytes
    asks_for_thoughts: bool = False
    patience: float = 0.0
    # Which of the requests it is whose answers are known, if any.
    known: int | None = None


@dataclass(frozen=True)
class Traffic:
    """Everything that is sent, for one seed and server."""

    model: str
    max_budget: int
    shows_thoughts: bool
    seed: int
    num_known: int = 24
    known: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(f"{self.seed} known")
        object.__setattr__(self, "known", [self._request(rng) for _ in range(self.num_known)])

    def of_client(self, client: int) -> Iterator[Doing]:
        """What one client does, without end."""
        rng = random.Random(f"{self.seed} client {client}")
        while True:
            (act,) = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            yield self._doing(act, rng)

    def _doing(self, act: Act, rng: random.Random) -> Doing:
        if act == Act.BAD:
            return Doing(act, self._bad_body(rng))
        known = rng.randrange(self.num_known) if rng.random() < 0.5 else None
        request = self._request(rng) if known is None else dict(self.known[known])
        request["stream"] = act in (Act.STREAM, Act.LEAVE_STREAM)
        if act in (Act.LEAVE_WHOLE, Act.LEAVE_STREAM):
            known = None
            request["max_tokens"] = 400
        asks = self.shows_thoughts and rng.random() < 0.3
        if asks:
            request["return_thoughts"] = True
        patience = rng.uniform(0.0, 1.5)
        return Doing(act, json.dumps(request).encode(), asks, patience, known)

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
