"""Service levels: `p95 time_per_visible_token<=100ms`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.intervals import Z_ONE_SIDED, wilson
from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.percentiles import PERCENTILES
from loadtest.errors import LoadTestError
from loadtest.records import Record

BATCHES = 10
"""Batches per repeat, for the correlation of neighbouring requests."""
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
LEVEL = re.compile(
    r"(?P<percentile>p[\d.]+)[ _](?P<latency>\w+)"
    r"\s*<=?\s*(?P<limit>\d+(\.\d*)?)\s*(?P<unit>us|ms|s)"
)


@dataclass(frozen=True)
class Level:
    """At most a share of 1 − p of all requests may take longer than the limit, or fail."""

    text: str
    percentile: str
    latency: str
    limit: float

    @property
    def allowed(self) -> float:
        """The share of requests that may exceed the limit."""
        return 1 - PERCENTILES[self.percentile]

    def kept(self, record: Record) -> bool:
        """Whether a request stayed within the limit; an answer of a single token has no time per
        token, and does. One that was cut before its first visible token never showed it."""
        if record.failure is not None or (
            self.latency == "time_to_first_token" and record.ended_thinking
        ):
            return False
        return all(value <= self.limit for value in LATENCIES[self.latency].of(record))


@dataclass(frozen=True)
class LevelVerdict:
    """Whether a level holds, from measured requests.

    Neighbouring requests are correlated, because they wait in the same queue: `effective` is the
    number of independent requests with the same variance (batch means).
    `holds` is None where the one-sided 95 % Wilson bounds of the share of misses lie on both sides
    of what is allowed: more requests could decide it.
    """

    level: Level
    misses: int
    requests: int
    effective: float

    @property
    def holds(self) -> bool | None:
        if not self.requests:
            return None
        share = self.misses / self.requests
        bounds = wilson(share * self.effective, self.effective, Z_ONE_SIDED)
        if bounds.high <= self.level.allowed:
            return True
        return False if bounds.low > self.level.allowed else None

    @property
    def holds_as_measured(self) -> bool:
        """Whether these requests kept the level, without a claim about further ones."""
        return self.misses <= self.level.allowed * self.requests


def parse_level(text: str) -> Level:
    """Read a service level; raises `LoadTestError` with the form of one."""
    match = LEVEL.fullmatch(text.strip())
    if match is None:
        raise LoadTestError(
            f"{text!r} is no service level; write one like 'p95 time_per_visible_token<=100ms'"
        )
    percentile, latency = match["percentile"], match["latency"]
    if percentile not in PERCENTILES:
        raise LoadTestError(f"{text!r}: {percentile} is none of {', '.join(PERCENTILES)}")
    names = [name for name, known in LATENCIES.items() if known.per_request]
    if latency not in names:
        raise LoadTestError(f"{text!r}: {latency} is none of {', '.join(names)}")
    limit = float(match["limit"]) * UNITS[match["unit"]]
    written = f"{percentile} {latency}<={match['limit']}{match['unit']}"
    return Level(written, percentile, latency, limit)


def all_kept(levels: Sequence[Level], record: Record) -> bool:
    """Whether a request counts for goodput: it succeeded and stayed within every limit."""
    return record.failure is None and all(level.kept(record) for level in levels)


def verdicts(levels: Sequence[Level], repeats: Iterable[Sequence[Record]]) -> list[LevelVerdict]:
    """Judge measured records of one repeat or more, each in the order in which they were due."""
    records = list(repeats)
    found = []
    for level in levels:
        missed = [np.array([not level.kept(r) for r in repeat], float) for repeat in records]
        every = np.concatenate(missed) if missed else np.zeros(0)
        found.append(LevelVerdict(level, int(every.sum()), every.size, _effective(missed, every)))
    return found


def _effective(missed: Sequence[NDArray[np.float64]], every: NDArray[np.float64]) -> float:
    """The number of requests over the variance of the batches relative to independent requests."""
    if not 0 < every.sum() < every.size:
        return float(every.size)
    batches = [
        batch for repeat in missed for batch in np.array_split(repeat, BATCHES) if batch.size
    ]
    if len(batches) < 2:
        return float(every.size)
    share = every.mean()
    scatter = sum(batch.size * (batch.mean() - share) ** 2 for batch in batches)
    excess = scatter / (len(batches) - 1) / (share * (1 - share))
    return float(every.size / max(1.0, excess))
