"""Thought budgets: fixed, or a mix from which the budget of each request is drawn; and the fields
with which other servers are told how much to think."""

import json
import random
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from loadtest.errors import LoadTestError
from loadtest.records import threshold_suffix


class FieldValue(NamedTuple):
    """A field of a request and its value, in JSON; dots lead into objects:
    `chat_template_kwargs.enable_thinking`."""

    name: str
    json: str

    @property
    def text(self) -> str:
        """The value as on the command line."""
        value = json.loads(self.json)
        return value if isinstance(value, str) else self.json

    def put_into(self, body: dict[str, Any]) -> None:
        """Set it, beside whatever else is in the objects on the way to it."""
        *path, last = self.name.split(".")
        for name in path:
            inner = body.get(name)
            body[name] = dict(inner) if isinstance(inner, dict) else {}
            body = body[name]
        body[last] = json.loads(self.json)


@dataclass(frozen=True)
class BudgetMix:
    """Budgets and their shares, which add up to 1. None sends no budget, for servers without."""

    shares: tuple[tuple[int | None, float], ...]
    threshold: float | None = None
    """The thought threshold of those that think, in nats. None sends none: the server's own."""
    field: FieldValue | None = None
    """Sent in place of a budget."""

    def draw(self, rng: random.Random) -> int | None:
        """The budget of one request."""
        budgets = [budget for budget, _ in self.shares]
        steps = list(accumulate(share for _, share in self.shares))
        return rng.choices(budgets, cum_weights=steps)[0]

    @property
    def by_name(self) -> dict[str, float]:
        """As in `Cell.budgets`."""
        if self.field is not None:
            return {self.field.text: 1.0}
        return {"none" if budget is None else str(budget): share for budget, share in self.shares}

    @property
    def may_think(self) -> bool:
        """Whether any of its budgets is another one than 0."""
        return any(budget != 0 for budget, _ in self.shares)

    @property
    def name(self) -> str:
        """With the threshold, if there is one: `8, threshold 0.1`."""
        return str(self) + threshold_suffix(self.threshold)

    def __str__(self) -> str:
        """The budgets as on the command line."""
        names = self.by_name
        if len(names) == 1:
            return next(iter(names))
        return ",".join(f"{name}:{share:g}" for name, share in names.items())


NO_BUDGET = BudgetMix(((None, 1.0),))


def parse_budgets(text: str) -> tuple[BudgetMix, ...]:
    """`0,2,4`: one mix (of one budget) each. `0:0.5,4:0.3,16:0.2`: one mix of three; the shares are
    relative, so `0:5,4:3,16:2` is the same. `none`: send no budget.

    Raises `LoadTestError`.
    """
    parts = [part.strip() for part in text.split(",")]
    with_share = [":" in part for part in parts]
    if all(with_share):
        return (_mix(parts, text),)
    if any(with_share):
        raise LoadTestError(
            f"budgets {text!r}: either all have a share (0:0.5,4:0.5: one mix) or none has (0,4: "
            "one after the other)"
        )
    mixes = [BudgetMix(((_budget(part, text), 1.0),)) for part in parts]
    for number, mix in enumerate(mixes):
        if mix in mixes[:number]:
            raise LoadTestError(f"budgets {text!r}: {mix} is there twice")
    return tuple(mixes)


def parse_budget_field(text: str) -> tuple[BudgetMix, ...]:
    """`reasoning_effort=low,medium,high`: one cell for each value, which is JSON, or else text.

    Raises `LoadTestError`.
    """
    name, _, values = text.partition("=")
    name, parts = name.strip(), [part.strip() for part in values.split(",")]
    if not re.fullmatch(r"\w+(\.\w+)*", name) or not all(parts):
        raise LoadTestError(
            f"budget field {text!r} is not like reasoning_effort=low,medium,high or "
            "thinking_token_budget=0,256,1024"
        )
    if len(set(parts)) < len(parts):
        raise LoadTestError(f"budget field {text!r}: a value is there twice")
    return tuple(BudgetMix(((None, 1.0),), field=FieldValue(name, _json(part))) for part in parts)


def _json(text: str) -> str:
    try:
        return json.dumps(json.loads(text))
    except ValueError:
        return json.dumps(text)


def _mix(parts: list[str], text: str) -> BudgetMix:
    weights: dict[int | None, float] = {}
    for part in parts:
        name, _, share = part.partition(":")
        budget = _budget(name, text)
        if budget in weights:
            raise LoadTestError(f"budgets {text!r}: {name} is there twice")
        weights[budget] = _share(share, text)
    total = sum(weights.values())
    return BudgetMix(tuple((budget, weight / total) for budget, weight in weights.items()))


def _budget(name: str, text: str) -> int | None:
    if name == "none":
        return None
    if not (name.isascii() and name.isdigit()):
        raise LoadTestError(
            f"budgets {text!r}: {name!r} is no whole number from 0 up; write 0,2,4 for one cell "
            "each, or 0:0.5,4:0.5 for a mix"
        )
    return int(name)


def _share(share: str, text: str) -> float:
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise LoadTestError(f"budgets {text!r}: {share!r} is no share, must be a number above 0")
    return value
