"""The search, against a simulated server whose capacity is known."""

import random

import pytest

from loadtest.analysis.levels import parse_level
from loadtest.analysis.search import SearchRange, search, sentence
from loadtest.records import Cell
from tests.support.loadtest.records import HEALTHY, made_cell, made_record

CAPACITY = 20.0
LEVELS = [parse_level("p95 time_to_first_token<=200ms")]


class SimulatedServer:
    """One queue, Poisson arrivals; a request is served in 1 / CAPACITY seconds at most, on average
    in half of it, and its first token comes when it has been."""

    def __init__(
        self, seed: int, hiccups: float = 0.0, client_rate: float = 1e9, requests: int = 200
    ) -> None:
        self.requests = requests
        self.rng = random.Random(seed)
        self.hiccups = hiccups
        self.client_rate = client_rate
        self.cells = 0

    def measure(self, rate: float, repeat: int) -> Cell:
        self.cells += 1
        time = free = 0.0
        records = []
        slow = self.rng.random() < self.hiccups
        for index in range(self.requests):
            time += self.rng.expovariate(rate)
            free = max(free, time) + self.rng.uniform(0.0, 2 / CAPACITY)
            wait = free - time + (0.5 if slow else 0.0)
            records.append(made_record(index, time, first=wait, per_token=0.0, tokens=2))
        cell = made_cell(records, (0.0, time), load=f"poisson:{rate:g}", repeat=repeat)
        if rate > self.client_rate:
            cell.client = HEALTHY.model_copy(update={"late_sends": 100})
        return cell


def true_share_of_misses(rate: float) -> float:
    cell = [SimulatedServer(seed).measure(rate, 0) for seed in range(60)]
    records = [record for one in cell for record in one.records]
    return sum((record.time_to_first_token or 0.0) > 0.2 for record in records) / len(records)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("start", [1.0, 100.0])
def test_the_highest_rate_is_found_from_below_and_from_above(seed: int, start: float) -> None:
    found = search(SimulatedServer(seed).measure, LEVELS, SearchRange(start=start))
    assert found.best is not None
    assert found.failing is not None
    assert found.best.rate < found.failing.rate <= found.best.rate * 1.1
    # What is found is right within a quarter, judged by a hundred times as many requests.
    assert true_share_of_misses(found.best.rate * 0.75) < 0.05
    assert true_share_of_misses(found.failing.rate * 1.25) > 0.05


def test_a_hiccup_does_not_end_the_search_early() -> None:
    # Every sixth cell is slow from beginning to end, whatever the rate.
    rates = [
        found.best.rate if (found := search(s.measure, LEVELS, SearchRange())).best else 0.0
        for s in (SimulatedServer(seed, hiccups=1 / 6) for seed in range(5))
    ]
    clean = search(SimulatedServer(0).measure, LEVELS, SearchRange()).best
    assert clean is not None
    assert sorted(rates)[2] > clean.rate / 4


def test_a_close_rate_takes_more_repeats_than_a_clear_one() -> None:
    found = search(SimulatedServer(0, requests=100).measure, LEVELS, SearchRange())
    repeats = {judged.rate: judged.repeats for judged in found.judged}
    assert repeats[1.0] == 2
    assert max(repeats.values()) > 2


def test_a_level_that_never_holds_is_reported() -> None:
    found = search(
        SimulatedServer(0).measure,
        [parse_level("p95 time_to_first_token<=1us")],
        SearchRange(lowest=0.2),
    )
    assert found.best is None
    assert sentence("4", found) == "budget 4: not even at 0.2 requests per second"


def test_the_client_as_the_limit_is_reported() -> None:
    found = search(SimulatedServer(0, client_rate=3.0).measure, LEVELS, SearchRange())
    assert found.client_limited
    assert "limited by the client" in sentence("0", found)


def test_a_client_that_is_late_once_is_not_taken_for_the_limit() -> None:
    server = SimulatedServer(0)

    def measure(rate: float, repeat: int) -> Cell:
        cell = server.measure(rate, repeat)
        if repeat == 1:
            cell.client = HEALTHY.model_copy(update={"late_sends": 100})
        return cell

    found = search(measure, LEVELS, SearchRange())
    clean = search(SimulatedServer(0).measure, LEVELS, SearchRange())
    assert not found.client_limited
    assert found == clean


def test_a_server_that_falls_behind_fails_whatever_its_latencies() -> None:
    def measure(rate: float, repeat: int) -> Cell:
        # Answers a third, at once; the others are still on their way when the window ends.
        records = [made_record(n, n / rate, first=0.01 if n % 3 == 0 else 1e6) for n in range(300)]
        return made_cell(records, (0.0, 300 / rate))

    found = search(measure, [parse_level("p50 time_per_visible_token<=1s")], SearchRange())
    assert found.best is None
    assert not found.judged[0].kept_up


def test_a_cell_that_is_cut_short_ends_the_search() -> None:
    def measure(rate: float, repeat: int) -> Cell:
        cell = SimulatedServer(0).measure(rate, repeat)
        cell.partial = rate > 2
        return cell

    found = search(measure, LEVELS, SearchRange())
    assert found.interrupted
    assert found.best is not None
    assert found.best.rate == 2
    assert "cut short" in sentence("0", found)
