"""Why requests failed: kinds and messages, the commonest first."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from loadtest.analysis.figures import CUT_SHORT, measured
from loadtest.records import Cell

_LONGEST = 160


class Reason(NamedTuple):
    """Requests that failed alike: with the same message but for its numbers."""

    kind: str
    number: int
    message: str
    """Of the first of them, in one line."""

    @property
    def text(self) -> str:
        """`3 http: 500: it broke`."""
        message = self.message
        shown = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"
        return f"{self.number} {self.kind}: {shown}" if shown else f"{self.number} {self.kind}"


def reasons(cells: Iterable[Cell]) -> list[Reason]:
    """Of all measured requests of these cells, without those that were cut short."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for cell in cells:
        for record in measured(cell.records):
            if record.failure is not None and record.failure not in CUT_SHORT:
                message = " ".join((record.message or "").split())
                key = (record.failure.value, re.sub(r"\d+", "#", message))
                counts[key] += 1
                first.setdefault(key, message)
    return [Reason(key[0], count, first[key]) for key, count in counts.most_common()]
