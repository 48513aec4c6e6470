"""Thought thresholds, in nats: a request thinks before a token only where more gain is expected."""

import math
from collections.abc import Sequence
from dataclasses import replace

from loadtest.errors import LoadTestError
from loadtest.traffic.budgets import BudgetMix


def parse_thresholds(text: str | None) -> tuple[float | None, ...]:
    """`0,0.02,0.1`: one cell each, with every budget. None = send no threshold.

    Raises `LoadTestError`.
    """
    if text is None:
        return (None,)
    thresholds: list[float] = []
    for part in text.split(","):
        threshold = _threshold(part.strip(), text)
        if threshold in thresholds:
            raise LoadTestError(f"thresholds {text!r}: {part.strip()} is there twice")
        thresholds.append(threshold)
    return tuple(thresholds)


def crossed(
    mixes: Sequence[BudgetMix], thresholds: Sequence[float | None]
) -> tuple[BudgetMix, ...]:
    """Each budget or mix with each threshold; budget 0, which never thinks, once and without."""
    every = (
        replace(mix, threshold=threshold if mix.may_think else None)
        for mix in mixes
        for threshold in thresholds
    )
    return tuple(dict.fromkeys(every))


def _threshold(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise LoadTestError(
            f"thresholds {text!r}: {part!r} is no number of nats from 0 up; write 0,0.02,0.1 for "
            "one cell each (0 = think before every token)"
        )
    return abs(value)
