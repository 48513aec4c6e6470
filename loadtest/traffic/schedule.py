"""Which requests of a cell are due when, and which worker sends them."""

import itertools
import math
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


def open_schedule(
    load: OpenLoop, extent: Extent, seed: int, repeat: int, turns: int = 1
) -> Schedule:
    """Warm-up, measured part and cool-down; the measured part does not depend on the others.

    With `turns`, the first requests of sessions, of which fewer begin, so that as many requests are
    due as without. When later turns are due depends on the server; so does the end of the window
    where only a number of requests ends it, which is then infinity.
    """
    sessions = load.of_sessions(turns)
    lead_in = load.lead_in().of_sessions(turns).arrivals(rng_for(seed, "warm-up", repeat))
    early = itertools.takewhile(lambda time: time < extent.warmup, lead_in)
    warmup = [Due(-1 - number * turns, time, False) for number, time in enumerate(early)]
    end = min(load.length or float("inf"), extent.seconds or float("inf"))
    measured: list[Due] = []
    cooldown: list[Due] = []
    for number, time in enumerate(sessions.arrivals(rng_for(seed, "arrivals", repeat))):
        index = number * turns
        if extent.requests is not None and index >= extent.requests:
            if turns > 1:
                break
            end = min(end, time)
        if time >= end + extent.cooldown:
            break
        due = Due(index, extent.warmup + time, time < end)
        (measured if due.measured else cooldown).append(due)
    return Schedule([*warmup, *measured, *cooldown], (extent.warmup, extent.warmup + end))


class Timing(NamedTuple):
    """When the parts of a cell end, in seconds from its start; None where that depends on the
    server: in a closed loop, or with sessions, where only a number of requests ends it."""

    warmup_ends: float
    window_ends: float | None
    sending_ends: float | None


def timing_of(load: Load, extent: Extent, seed: int, repeat: int, turns: int = 1) -> Timing:
    """The timing of a cell that is not cut short."""
    if isinstance(load, ClosedLoop):
        end = None if extent.seconds is None else extent.warmup + extent.seconds
        return Timing(extent.warmup, end, end)
    start, end = open_schedule(load, extent, seed, repeat, turns).window
    if math.isinf(end):
        return Timing(start, None, None)
    return Timing(start, end, end + extent.cooldown)


def session_of(index: int, turns: int) -> tuple[int, int]:
    """The session of a request and its number in it; sessions of the warm-up count down from -1, as
    its requests do."""
    session, turn = divmod(index if index >= 0 else -1 - index, turns)
    return (session if index >= 0 else -1 - session), turn


def worker_of(index: int, load: Load, workers: int, turns: int = 1) -> int:
    """The worker that sends a request. In a closed loop each worker has a share of the users, and
    the same share of the requests, or of the sessions."""
    session, _ = session_of(index, turns)
    user = session % load.concurrency if isinstance(load, ClosedLoop) else session
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
