"""Loads: when requests are due."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.arrivals import (
    ClosedLoop,
    ConstantRate,
    GammaRate,
    PoissonRate,
    Ramp,
    Trace,
    parse_load,
)

SAMPLES = 4000


def gaps(load: PoissonRate | GammaRate, seed: int = 0) -> list[float]:
    times = [0.0, *itertools.islice(load.arrivals(random.Random(seed)), SAMPLES)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def gamma_cdf(shape: float, scale: float) -> Callable[[float], float]:
    """The series of the regularised lower incomplete gamma function."""

    def cdf(value: float) -> float:
        x = value / scale
        if x <= 0:
            return 0.0
        if x > 50 * max(1.0, shape):
            return 1.0
        term = total = 1 / shape
        for n in itertools.count(1):
            term *= x / (shape + n)
            total += term
            if term < 1e-12 * total:
                break
        return min(1.0, total * math.exp(shape * math.log(x) - x - math.lgamma(shape)))

    return cdf


def distance(samples: Sequence[float], cdf: Callable[[float], float]) -> float:
    """Kolmogorov and Smirnov's: between the distribution of the samples and the one expected."""
    ordered, n = sorted(samples), len(samples)
    return max(
        max((rank + 1) / n - cdf(value), cdf(value) - rank / n)
        for rank, value in enumerate(ordered)
    )


# The distance that samples of the right distribution exceed once in a thousand times.
CRITICAL = 1.95 / math.sqrt(SAMPLES)


def test_poisson_gaps_are_exponential() -> None:
    assert distance(gaps(PoissonRate(12.5)), lambda gap: 1 - math.exp(-12.5 * gap)) < CRITICAL


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_gamma_gaps_have_the_rate_and_the_burstiness(cv: float) -> None:
    shape = 1 / cv**2
    cdf = gamma_cdf(shape, 1 / (10 * shape))
    assert distance(gaps(GammaRate(10, cv)), cdf) < CRITICAL
    # The measure tells distributions apart: this is not a test that always passes.
    assert distance(gaps(GammaRate(10, cv * 1.2)), cdf) > CRITICAL


def test_a_constant_rate_is_evenly_spaced_however_long_it_lasts() -> None:
    times = list(itertools.islice(ConstantRate(3).arrivals(random.Random(0)), 3001))
    assert times[0] == 0
    assert times[3000] == 1000


def test_a_ramp_goes_up_in_steps_and_ends() -> None:
    load = parse_load("ramp:10-50@100s,steps=5")
    assert isinstance(load, Ramp)
    assert load.rates == [10, 20, 30, 40, 50]
    assert load.length == 100
    times = list(load.arrivals(random.Random(0)))
    assert times == sorted(times)
    for step, rate in enumerate(load.rates):
        number = sum(step * 20 <= time < (step + 1) * 20 for time in times)
        assert abs(number - 20 * rate) < 3.3 * math.sqrt(20 * rate)  # one in a thousand
    assert times[-1] < 100


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"timestamp": 12.0}\n\n{"timestamp": 10, "x": 1}\n{"timestamp": 11.5}\n'),
        ("a.csv", "id,timestamp\r\n1,10\r\n2,11.5\r\n3,12\r\n"),
    ],
)
def test_a_trace_is_replayed_from_its_first_time(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    load = parse_load(f"trace:{tmp_path / name}")
    assert isinstance(load, Trace)
    assert list(load.arrivals(random.Random(0))) == [0, 1.5, 2]
    assert load.rate == 1
    assert load.length == 3
    faster = parse_load(f"trace:{tmp_path / name},speed=2")
    assert isinstance(faster, Trace)
    assert faster.times == (0, 0.75, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"time": 1}', "needs a timestamp"),
        ("no json", "needs a timestamp"),
        ('{"timestamp": 1}', "two requests or more"),
        ('{"timestamp": 1}\n{"timestamp": 1}', "two requests or more"),
    ],
)
def test_a_bad_trace_is_explained(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "t").write_text(content)
    with pytest.raises(LoadTestError, match=words):
        parse_load(f"trace:{tmp_path / 't'}")


def test_a_missing_trace_is_explained() -> None:
    with pytest.raises(LoadTestError, match=r"nowhere\.csv: No such file"):
        parse_load("trace:nowhere.csv")


@pytest.mark.parametrize(
    "text",
    ["closed:8", "constant:5", "poisson:12.5", "gamma:10,cv=2", "ramp:1-20@60s,steps=5"],
)
def test_a_load_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_load(text)) == text


def test_the_number_of_a_ramps_steps_need_not_be_given() -> None:
    assert parse_load("ramp:1-20@60s") == parse_load("ramp:1-20@60s,steps=5")
    assert parse_load(" closed:8 ") == ClosedLoop(8)


@pytest.mark.parametrize(
    "text",
    [
        *("", "8", "closed", "closed:", "closed:0", "closed:1.5", "closed:-1", "constant:0"),
        *("poisson:-1", "poisson:nan", "poisson:inf", "gamma:10", "gamma:10,cv=0", "gamma:0,cv=1"),
        *("ramp:1-20", "ramp:1-20@60", "ramp:0-20@60s", "ramp:1-20@60s,steps=0", "trace:"),
    ],
)
def test_an_invalid_load_is_explained(text: str) -> None:
    with pytest.raises(LoadTestError, match="is none of these"):
        parse_load(text)
