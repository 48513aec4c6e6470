"""The server's own metrics, where it has any: counters before and after a cell, and the number of
requests in its batch and queue while the cell runs."""

import re
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.client.probe import ServerFacts
from loadtest.client.requests import headers
from loadtest.traffic.plan import Target

_FAMILIES = ("vllm:", "quietstar:")
# Sum and count of a histogram are enough: distributions are measured at the client.
_NOT_KEPT = ("_bucket", "_created")
_SECONDS = 10.0
_PERIOD = 2.0
"""Seconds between samples. `/metrics` takes a server some ten milliseconds: more often would affect
the figures."""


def read_counters(target: Target, facts: ServerFacts) -> dict[str, float]:
    """Counters, and sums and counts of histograms, by name and labels; empty for a server without
    metrics."""
    try:
        response = httpx.get(f"{facts.url}/metrics", headers=headers(target), timeout=_SECONDS)
        families = list(text_string_to_metric_families(response.raise_for_status().text))
    except (httpx.HTTPError, ValueError):
        return {}
    return {
        _key(sample.name, sample.labels): float(sample.value)
        for family in families
        if family.type in ("counter", "histogram", "summary", "unknown")
        and family.name.startswith(_FAMILIES)
        for sample in family.samples
        if not sample.name.endswith(_NOT_KEPT)
    }


def changes(
    before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]
) -> dict[str, tuple[float, float]]:
    """Values before and after, over all servers that still answer; counters that are new began
    at 0."""
    total: dict[str, tuple[float, float]] = {}
    for first, last in zip(before, after, strict=True):
        for name, value in last.items():
            start, end = total.get(name, (0.0, 0.0))
            total[name] = (start + first.get(name, 0.0), end + value)
    return total


def _key(name: str, labels: dict[str, str]) -> str:
    text = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{text}}}" if text else name


class Occupancy(NamedTuple):
    """Requests in the engine's batch and queue at one moment, on `time.monotonic`."""

    time: float
    running: float
    waiting: float


def read_occupancy(text: str) -> tuple[float, float] | None:
    """Running and waiting requests of all engines, from the text of `/metrics`."""
    found = [
        [float(value) for value in re.findall(rf"^vllm:{gauge}(?:{{.*}})? (\S+)$", text, re.M)]
        for gauge in ("num_requests_running", "num_requests_waiting")
    ]
    running, waiting = found
    return (sum(running), sum(waiting)) if running and waiting else None


class OccupancyWatch:
    """Samples the servers every two seconds for the length of a `with` block. In a thread of its
    own, so that a server that is slow to answer delays nothing else."""

    def __init__(self, target: Target, servers: Sequence[ServerFacts]) -> None:
        self.seen: list[Occupancy] = []
        self._client = httpx.Client(headers=headers(target), timeout=_SECONDS)
        self._urls = [f"{facts.url}/metrics" for facts in servers]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        with self._client:
            while self._sample() and not self._ended.wait(_PERIOD):
                pass

    def _sample(self) -> bool:
        """Take a sample, over all servers that answer; False where one is without these metrics,
        which are not asked for again."""
        now = time.monotonic()
        running = waiting = 0.0
        for url in self._urls:
            try:
                found = read_occupancy(self._client.get(url).text)
            except httpx.HTTPError:
                continue
            if found is None:
                return False
            running, waiting = running + found[0], waiting + found[1]
        if not self._ended.is_set():
            self.seen.append(Occupancy(now, running, waiting))
        return True
