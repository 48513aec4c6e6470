"""From the outcomes of a task's items to estimates, by cell of the sweep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from training.evaluations.cost import Cost
from training.evaluations.estimates import Estimate, mean, share
from training.evaluations.sweep import Cell

Items: TypeAlias = Sequence[Mapping[str, Any]]
Estimates: TypeAlias = dict[str, Estimate]
"""By measure."""

MEASURES: Mapping[str, Mapping[str, str]] = {
    "number": {
        "accuracy": "product of the answer's probabilities among digits and newline",
        "exact": "greedy decoding gives the answer",
    },
    "letter": {
        "accuracy": "product of the answer's probabilities among letters and newline",
        "exact": "greedy decoding gives the answer",
    },
    "choice": {"right": "the right answer is the likeliest of the choices"},
    "chain": {
        "majority": "the most frequent answer of the votes is right",
        "vote": "a single vote is right",
    },
    "text": {"perplexity": "per token", "nll": "nats per token", "gain": "nats saved per token"},
}
"""By kind of task: its measures and what they are; the first one is plotted first."""

BOUNDS = (0.0, 0.1, 1.0, 3.0, np.inf)
"""Bounds of the loss (nats) that a token has without a thought: easy tokens, then harder ones."""


def estimates(kind: str, items: Items, cell: Cell) -> Estimates:
    """All measures of a task in one cell."""
    outcomes = [item["outcomes"][cell.key] for item in items]
    if kind in ("number", "letter"):
        return {
            "accuracy": mean([outcome["accuracy"] for outcome in outcomes]),
            "exact": share([outcome["exact"] for outcome in outcomes]),
        }
    if kind == "choice":
        return {"right": share([outcome["right"] for outcome in outcomes])}
    if kind == "chain":
        return {
            "majority": share([outcome["right"] for outcome in outcomes]),
            "vote": mean([outcome["votes_right"] for outcome in outcomes]),
        }
    nll = _per_token(items, cell, lambda base, own: own)
    return {
        "perplexity": nll.through(math.exp),
        "nll": nll,
        "gain": _per_token(items, cell, lambda base, own: base - own),
    }


def difficulty(items: Items, cell: Cell) -> list[dict[str, Any]]:
    """Documents' tokens by their loss without a thought: the losses with thoughts, and the gain."""
    table = []
    for low, high in pairwise(BOUNDS):
        count = _sums(items, cell, lambda base, own: (low <= base) & (base < high))  # noqa: B023
        if sum(count):
            table.append(
                {
                    "from": low,
                    "below": high if np.isfinite(high) else None,
                    "tokens": int(sum(count)),
                    **{
                        name: asdict(mean(_within(items, cell, low, high, of), count))
                        for name, of in (
                            ("base_nll", lambda base, own: base),
                            ("nll", lambda base, own: own),
                            ("gain", lambda base, own: base - own),
                        )
                    },
                }
            )
    return table


def corpus_likelihood(items: Items, cell: Cell) -> dict[str, float]:
    """The measures of lm-evaluation-harness, per byte and word, over all documents together."""
    total = float(sum(_sums(items, cell, lambda base, own: own)))
    num_bytes, num_words = (sum(item[name] for item in items) for name in ("bytes", "words"))
    return {
        "bits_per_byte": total / num_bytes / float(np.log(2)),
        "byte_perplexity": float(np.exp(total / num_bytes)),
        "word_perplexity": float(np.exp(total / num_words)),
    }


def cost_summary(items: Items, cell: Cell) -> dict[str, float]:
    """What a task's tokens cost in one cell, in all and per token."""
    cost = sum((Cost(**item["outcomes"][cell.key]["cost"]) for item in items), Cost(0))
    return {
        **asdict(cost),
        "thought_about": cost.thoughts / cost.tokens,
        "passes_per_token": cost.passes(cell) / cost.tokens,
    }


def mixing_weight(items: Items, cell: Cell) -> dict[str, float] | None:
    """The mean weight of the thoughts at those tokens that were thought about; None where there
    were none, or where a server did not tell that of each.
    """
    weights = [
        [weight for weight in item["outcomes"][cell.key].get("weights", ()) if weight is not None]
        for item in items
    ]
    num_thoughts = sum(Cost(**item["outcomes"][cell.key]["cost"]).thoughts for item in items)
    known = [found for found in weights if found]
    if not known or sum(map(len, known)) < num_thoughts:
        return None
    return asdict(mean(list(map(sum, known)), list(map(len, known))))


def task_summary(kind: str, items: Items, cells: Sequence[Cell]) -> dict[str, Any]:
    """All figures of a task, by cell, as in results.json."""
    summary: dict[str, Any] = {}
    for cell in cells:
        summary[cell.key] = {
            name: asdict(estimate) for name, estimate in estimates(kind, items, cell).items()
        }
        summary[cell.key]["cost"] = cost_summary(items, cell)
        if kind == "text":
            summary[cell.key] |= corpus_likelihood(items, cell)
            summary[cell.key]["difficulty"] = difficulty(items, cell)
            summary[cell.key]["mixing_weight"] = mixing_weight(items, cell)
    return summary


def _losses(item: Mapping[str, Any], cell: Cell) -> tuple[Any, Any]:
    """A document's losses by token, without and with thoughts."""
    outcomes = item["outcomes"]
    return np.asarray(outcomes["0"]["nll"]), np.asarray(outcomes[cell.key]["nll"])


def _sums(items: Items, cell: Cell, of: Any) -> list[float]:
    """The sum of a function of both losses over each document's tokens."""
    return [float(of(*_losses(item, cell)).sum()) for item in items]


def _within(items: Items, cell: Cell, low: float, high: float, of: Any) -> list[float]:
    """The same over the tokens whose loss without a thought is in [low, high)."""
    return _sums(items, cell, lambda base, own: of(base, own) * ((low <= base) & (base < high)))


def _per_token(items: Items, cell: Cell, of: Any) -> Estimate:
    tokens = [len(item["outcomes"]["0"]["nll"]) for item in items]
    return mean(_sums(items, cell, of), tokens)
