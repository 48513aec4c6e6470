"""Which requests of a cell are due when, and which worker sends them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.traffic.arrivals import ClosedLoop, Load, OpenLoop
from loadtest.traffic.plan import Extent
from loadtest.traffic.seeds import rng_for


@dataclass(frozen=True, slots=True)
class Due:
    """A request of an open loop. Times are from the start of the cell."""

    index: int
    time: float
    measured: bool


class Schedule(NamedTuple):
    """All requests of an open loop, in the order in which they are due."""

    dues: list[Due]
    window: tuple[float, float]
    """The measured part."""


def open_schedule(load: OpenLoop, extent: Extent, seed: int, repeat: int) -> Schedule:
    """Warm-up, measured part and cool-down; the measured part does not depend on the others."""
    lead_in = load.lead_in().arrivals(rng_for(seed, "warm-up", repeat))
    early = itertools.takewhile(lambda time: time < extent.warmup, lead_in)
    warmup = [Due(-1 - number, time, False) for number, time in enumerate(early)]
    end = min(load.length or float("inf"), extent.seconds or float("inf"))
    measured: list[Due] = []
    cooldown: list[Due] = []
    for index, time in enumerate(load.arrivals(rng_for(seed, "arrivals", repeat))):
        if index == extent.requests:
            end = min(end, time)
        if time >= end + extent.cooldown:
            break
        due = Due(index, extent.warmup + time, time < end)
        (measured if due.measured else cooldown).append(due)
    return Schedule([*warmup, *measured, *cooldown], (extent.warmup, extent.warmup + end))


class Timing(NamedTuple):
    """When the parts of a cell end, in seconds from its start; None where that depends on the
    server: in a closed loop with a number of requests."""

    warmup_ends: float
    window_ends: float | None
    sending_ends: float | None


def timing_of(load: Load, extent: Extent, seed: int, repeat: int) -> Timing:
    """The timing of a cell that is not cut short."""
    if isinstance(load, ClosedLoop):
        end = None if extent.seconds is None else extent.warmup + extent.seconds
        return Timing(extent.warmup, end, end)
    start, end = open_schedule(load, extent, seed, repeat).window
    return Timing(start, end, end + extent.cooldown)


def worker_of(index: int, load: Load, workers: int, turns: int = 1) -> int:
    """The worker that sends a request. In a closed loop each worker has a share of the users, and
    the same share of the requests, or of the sessions."""
    user = index // turns % load.concurrency if isinstance(load, ClosedLoop) else index
    return user % workers


def share_of(load: ClosedLoop, worker: int, workers: int) -> int:
    """How many of a closed loop's users belong to a worker."""
    return len(range(worker, load.concurrency, workers))


def closed_indices(
    load: ClosedLoop, worker: int, workers: int, requests: int | None, turns: int = 1
) -> Iterator[int]:
    """The requests of a worker in a closed loop, in order; without end where only time ends it.
    Each session's are consecutive."""
    indices = itertools.count() if requests is None else range(requests)
    return (index for index in indices if worker_of(index, load, workers, turns) == worker)
