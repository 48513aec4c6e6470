"""When requests are due: closed loops, open loops, traces and ramps.

Times are seconds from the start of the measured part. Every load gives the same times for the same
random generator.
"""

import csv
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from loadtest.errors import LoadTestError

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_MANY_USERS = 256
"""Of `throughput` without a number."""
_STEPS = 5
"""Of a ramp without `steps`."""

FORMS = """\
synchronous               one request after the other: closed:1
throughput[:256]          as many as the server can answer: so many users without a pause
closed:8                  8 users, each sends its next request when the last one is answered
constant:5                5 requests per second, evenly spaced
poisson:12.5              12.5 requests per second, at random (exponential gaps)
gamma:10,cv=2             10 per second in bursts: gaps are gamma-distributed, their standard
                          deviation is cv times their mean (1 = poisson, 0.5 = smoother)
trace:FILE[,speed=2]      at the times in a file: JSONL with "timestamp", or CSV with such a column,
                          in seconds; speed=2 plays it twice as fast
ramp:1-20@60s[,steps=5]   poisson at 1 to 20 per second, in equal steps over 60 seconds"""


class OpenLoop(Protocol):
    """Requests are due at times that do not depend on the answers."""

    @property
    def rate(self) -> float:
        """Requests per second, on average."""
        ...

    @property
    def length(self) -> float | None:
        """Seconds after which it ends by itself."""
        ...

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        """Due times in ascending order, without end; those of traces and ramps end."""
        ...

    def lead_in(self) -> "OpenLoop":
        """The load of the warm-up: without end, at the rate at which this one begins."""
        ...

    def of_sessions(self, turns: int) -> "OpenLoop":
        """The load whose arrivals begin sessions of so many requests: the same rate of requests."""
        ...


@dataclass(frozen=True)
class ClosedLoop:
    """A number of users; each sends its next request when its last one is answered."""

    concurrency: int

    def __str__(self) -> str:
        return f"closed:{self.concurrency}"


@dataclass(frozen=True)
class ConstantRate:
    rate: float
    length = None

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        # Multiples instead of a sum, so that rounding errors do not accumulate.
        return (number / self.rate for number in itertools.count())

    def lead_in(self) -> OpenLoop:
        return self

    def of_sessions(self, turns: int) -> OpenLoop:
        return ConstantRate(self.rate / turns)

    def __str__(self) -> str:
        return f"constant:{self.rate:g}"


@dataclass(frozen=True)
class PoissonRate:
    rate: float
    length = None

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        return itertools.accumulate(rng.expovariate(self.rate) for _ in itertools.count())

    def lead_in(self) -> OpenLoop:
        return self

    def of_sessions(self, turns: int) -> OpenLoop:
        return PoissonRate(self.rate / turns)

    def __str__(self) -> str:
        return f"poisson:{self.rate:g}"


@dataclass(frozen=True)
class GammaRate:
    """Gaps of mean 1 / rate and standard deviation cv / rate."""

    rate: float
    cv: float
    length = None

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        shape = 1 / self.cv**2
        scale = 1 / (self.rate * shape)
        return itertools.accumulate(rng.gammavariate(shape, scale) for _ in itertools.count())

    def lead_in(self) -> OpenLoop:
        return self

    def of_sessions(self, turns: int) -> OpenLoop:
        return GammaRate(self.rate / turns, self.cv)

    def __str__(self) -> str:
        return f"gamma:{self.rate:g},cv={self.cv:g}"


@dataclass(frozen=True)
class Ramp:
    """Poisson arrivals at `steps` rates from `first` to `last`, each for an equal time."""

    first: float
    last: float
    seconds: float
    steps: int

    @property
    def rate(self) -> float:
        return (self.first + self.last) / 2

    @property
    def length(self) -> float:
        return self.seconds

    @property
    def rates(self) -> list[float]:
        if self.steps == 1:
            return [self.rate]
        height = (self.last - self.first) / (self.steps - 1)
        return [self.first + step * height for step in range(self.steps)]

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        length = self.seconds / self.steps
        for step, rate in enumerate(self.rates):
            for time in PoissonRate(rate).arrivals(rng):
                if time >= length:
                    break  # a Poisson process has no memory: the next step starts anew
                yield step * length + time

    def lead_in(self) -> OpenLoop:
        return PoissonRate(self.first)

    def of_sessions(self, turns: int) -> OpenLoop:
        return Ramp(self.first / turns, self.last / turns, self.seconds, self.steps)

    def __str__(self) -> str:
        return f"ramp:{self.first:g}-{self.last:g}@{self.seconds:g}s,steps={self.steps}"


@dataclass(frozen=True)
class Trace:
    """Times read from a file, counted from the first of them."""

    path: str
    speed: float
    times: tuple[float, ...]

    @property
    def rate(self) -> float:
        return (len(self.times) - 1) / self.times[-1]

    @property
    def length(self) -> float:
        # One mean gap after the last request: there the next one would be due.
        return len(self.times) / self.rate

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        return iter(self.times)

    def lead_in(self) -> OpenLoop:
        return PoissonRate(self.rate)

    def of_sessions(self, turns: int) -> OpenLoop:
        return replace(self, times=self.times[::turns])

    def __str__(self) -> str:
        return f"trace:{self.path}" + (f",speed={self.speed:g}" if self.speed != 1 else "")


Load: TypeAlias = ClosedLoop | ConstantRate | PoissonRate | GammaRate | Ramp | Trace


def parse_load(text: str) -> Load:
    """Read a load as in `FORMS`; raises `LoadTestError`, also where a trace cannot be read."""
    text = text.strip()
    kind, _, rest = text.partition(":")
    load = _read_trace(rest) if kind == "trace" and rest else _parse(kind, rest)
    if load is None:
        raise LoadTestError(
            f"load {text!r} is none of these (rates and times are above 0):\n{FORMS}"
        )
    return load


def _parse(kind: str, rest: str) -> Load | None:
    match kind:
        case "closed" if re.fullmatch(r"[1-9]\d*", rest):
            return ClosedLoop(int(rest))
        case "synchronous" if not rest:
            return ClosedLoop(1)
        case "throughput" if re.fullmatch(r"|[1-9]\d*", rest):
            return ClosedLoop(int(rest or _MANY_USERS))
        case "constant" if rate := _positive(rest):
            return ConstantRate(rate)
        case "poisson" if rate := _positive(rest):
            return PoissonRate(rate)
        case "gamma":
            mean, found, spread = rest.partition(",cv=")
            rate, cv = _positive(mean), _positive(spread)
            return GammaRate(rate, cv) if found and rate and cv else None
        case "ramp":
            return _parse_ramp(rest)
    return None


def _parse_ramp(rest: str) -> Ramp | None:
    found = re.fullmatch(rf"({_NUMBER})-({_NUMBER})@({_NUMBER})s(?:,steps=([1-9]\d*))?", rest)
    if found is None:
        return None
    first, last, seconds = (float(number) for number in found.groups()[:3])
    if not (first > 0 and last > 0 and seconds > 0):
        return None
    return Ramp(first, last, seconds, int(found[4] or _STEPS))


def _positive(text: str) -> float:
    """The number, or 0 for anything else."""
    return float(text) if re.fullmatch(_NUMBER, text) else 0.0


def _read_trace(rest: str) -> Trace | None:
    path, found, text = rest.partition(",speed=")
    speed = _positive(text) if found else 1.0
    if not speed:
        return None
    times = sorted(_timestamps(Path(path)))
    if len(times) < 2 or times[0] == times[-1]:
        raise LoadTestError(f"trace {path}: needs two requests or more, at different times")
    return Trace(path, speed, tuple((time - times[0]) / speed for time in times))


def _timestamps(path: Path) -> Sequence[float]:
    try:
        # newline="": required by the csv module.
        with path.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines) if path.suffix == ".csv" else _json_lines(lines)
            return [float(row["timestamp"]) for row in rows]
    except OSError as error:
        raise LoadTestError(f"trace {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LoadTestError(
            f"trace {path}: each line needs a timestamp in seconds, as "
            f'{{"timestamp": 0.25}} or in a CSV column of that name ({error})'
        ) from error


def _json_lines(lines: Iterable[str]) -> Iterator[Any]:
    return (json.loads(line) for line in lines if line.strip())
