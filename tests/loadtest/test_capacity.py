"""What the client can do, and that it says when that is too little."""

from array import array

import pytest

from loadtest.capacity import Capacity, capacity_command, capacity_table
from loadtest.errors import LoadTestError
from loadtest.sending.health import WorkerHealth, combine, complaints
from loadtest.testserver import running
from tests.support.loadtest.runs import run_one, small_plan


def test_the_command_prints_what_workers_can_send(capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity_command(["--duration", "0.5", "--workers", "1", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["workers", "requests/s"]
    for workers, line in zip((1, 2), lines[1:3], strict=True):
        number, rate, share, per_cpu = line.split()
        assert int(number) == workers
        assert float(rate) > 0
        assert 0 < float(share.rstrip("%")) <= 110
        assert float(per_cpu) > 0


def test_what_more_workers_bring_is_said_and_what_it_rests_on() -> None:
    one, two = Capacity(1, 1000.0, 0.5), Capacity(2, 1100.0, 0.3)
    assert "2 workers against 1: 1.10 times" in capacity_table([one, two], cores=4)
    few = capacity_table([one, two], cores=2)
    # 2 × 1100 / 2 / 0.3 over 1000 / 0.5
    assert "1.83 times by the CPU time" in few
    assert "has 2 for workers" in few


def test_a_run_beyond_the_clients_limit_says_so() -> None:
    with running() as url:
        # Due within a twenty-fifth of a second: no event loop sends as fast.
        cell = run_one(small_plan(url, "constant:50000", requests=2000, tokens="1"))
    assert any("the client is near its limit" in warning for warning in cell.warnings)
    assert not any(record.failure for record in cell.records)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(LoadTestError, match="nothing to measure"):
        capacity_command(["--workers", "0"])


def worker(lag: float = 0.001, cpu_share: float = 0.1, late_sends: int = 0) -> WorkerHealth:
    return WorkerHealth(array("f", [lag] * 100), cpu_share, late_sends)


def test_a_client_that_keeps_up_has_nothing_to_say() -> None:
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
