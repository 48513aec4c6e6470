"""Distributions of lengths, of prompts and of answers."""

import random
import re
from dataclasses import dataclass
from typing import Protocol

from loadtest.errors import LoadTestError

_NUMBER = r"\d+(?:\.\d+)?"


class Lengths(Protocol):
    """Draws lengths of 1 or more."""

    @property
    def least(self) -> int | None:
        """The shortest that was asked for; None for a distribution that reaches down to 1 by
        rounding up."""
        ...

    def draw(self, rng: random.Random) -> int: ...


@dataclass(frozen=True)
class Constant:
    length: int

    @property
    def least(self) -> int:
        return self.length

    def __str__(self) -> str:
        return str(self.length)

    def draw(self, rng: random.Random) -> int:
        return self.length


@dataclass(frozen=True)
class Uniform:
    """Both ends included."""

    low: int
    high: int

    @property
    def least(self) -> int:
        return self.low

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return f"uniform:{self.low}-{self.high}"


@dataclass(frozen=True)
class Normal:
    """Rounded, 1 at least."""

    mean: float
    spread: float
    least = None

    def draw(self, rng: random.Random) -> int:
        return max(1, round(rng.gauss(self.mean, self.spread)))

    def __str__(self) -> str:
        return f"normal:{self.mean:g},sd={self.spread:g}"


@dataclass(frozen=True)
class LogNormal:
    """median · exp(N(0, sigma²)), rounded, 1 at least."""

    median: float
    sigma: float
    least = None

    def draw(self, rng: random.Random) -> int:
        return max(1, round(self.median * rng.lognormvariate(0.0, self.sigma)))

    def __str__(self) -> str:
        return f"lognormal:{self.median:g},sigma={self.sigma:g}"


_FORMS = "128, uniform:16-256, normal:128,sd=32 or lognormal:128,sigma=0.5 (128 is the median)"


def parse_lengths(text: str) -> Lengths:
    """Read one of `128`, `uniform:16-256`, `normal:128,sd=32`, `lognormal:128,sigma=0.5`.

    Raises `LoadTestError`.
    """
    lengths = _parse(text)
    if lengths is None:
        raise LoadTestError(f"length {text!r} is none of {_FORMS}; lengths are 1 or more")
    return lengths


def _parse(text: str) -> Lengths | None:
    kind, _, rest = text.strip().rpartition(":")
    match kind:
        case "" if found := re.fullmatch(r"\d+", rest):
            length = int(found[0])
            return Constant(length) if length >= 1 else None
        case "uniform" if found := re.fullmatch(r"(\d+)-(\d+)", rest):
            low, high = int(found[1]), int(found[2])
            return Uniform(low, high) if 1 <= low <= high else None
        case "normal" if found := re.fullmatch(rf"({_NUMBER}),sd=({_NUMBER})", rest):
            mean, spread = float(found[1]), float(found[2])
            return Normal(mean, spread) if mean >= 1 else None
        case "lognormal" if found := re.fullmatch(rf"({_NUMBER}),sigma=({_NUMBER})", rest):
            median, sigma = float(found[1]), float(found[2])
            return LogNormal(median, sigma) if median >= 1 else None
    return None
