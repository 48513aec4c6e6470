"""The simulated servers do what they are said to do."""

from collections import deque

from benchmarks.balancing import (
    ROWS,
    STEPS_PER_SECOND,
    Job,
    Row,
    SimulatedServer,
    jobs,
    latencies,
)


def test_a_request_alone_takes_its_passes() -> None:
    assert list(latencies([Job(0, 50, 90)], "passes")) == [50 / STEPS_PER_SECOND]


def test_what_does_not_fit_in_the_batch_waits() -> None:
    same = [Job(0, 10, 10)] * (ROWS + 1)
    took = list(latencies(same, "requests", num_servers=1))
    assert took == [10 / STEPS_PER_SECOND] * ROWS + [20 / STEPS_PER_SECOND]


def test_loads_are_counted_in_requests_or_in_passes() -> None:
    server = SimulatedServer(
        batch=[Row(Job(0, 30, 50), done=20), Row(Job(0, 5, 9))], queue=deque([Row(Job(0, 3, 4))])
    )
    assert server.load("requests") == 3
    assert server.load("passes") == 30 + 9 + 4


def test_requests_are_the_same_for_a_seed() -> None:
    assert jobs(20, 2, seed=1) == jobs(20, 2, seed=1)
    assert all(job.passes <= job.expected for job in jobs(200, 2, seed=3))
