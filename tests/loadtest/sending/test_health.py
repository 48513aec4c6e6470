"""Whether the client keeps up, and that it says when it does not."""

from array import array

import pytest

from loadtest.sending.health import WorkerHealth, combine, complaints
from tests.support.loadtest.runs import run_one, small_plan

pytestmark = pytest.mark.usefixtures("reused_workers")


def worker(lag: float = 0.001, cpu_share: float = 0.1, late_sends: int = 0) -> WorkerHealth:
    return WorkerHealth(array("f", [lag] * 100), cpu_share, late_sends)


def test_a_client_that_keeps_up_causes_no_warning() -> None:
    health = combine([worker(), worker(late_sends=1)])
    assert (health.workers, health.late_sends) == (2, 1)
    assert complaints(health, sent=1000) == []


@pytest.mark.parametrize(
    ("slow", "words"),
    [
        (worker(lag=0.1), "event loop woke up to 100 ms late"),
        (worker(cpu_share=0.95), "95% of a CPU core"),
        (worker(late_sends=50), "50 of 1000 requests were sent more than 10 ms late"),
    ],
)
def test_one_slow_worker_is_enough_for_a_warning(slow: WorkerHealth, words: str) -> None:
    (warning,) = complaints(combine([worker(), slow]), sent=1000)
    assert words in warning
    assert "--workers" in warning


def test_a_run_beyond_the_clients_limit_has_a_warning(url: str) -> None:
    # Due within a twenty-fifth of a second: no event loop sends as fast.
    cell = run_one(small_plan(url, "constant:50000", requests=2000, tokens="1"))
    assert any("the client is near its limit" in warning for warning in cell.warnings)
    assert not any(record.failure for record in cell.records)


def test_the_client_reports_its_own_load(url: str) -> None:
    cell = run_one(small_plan(url, requests=10))
    assert cell.client is not None
    assert 0 < cell.client.loop_lag_p99 <= cell.client.loop_lag_max
    assert 0 < cell.client.cpu_share_max < 1
