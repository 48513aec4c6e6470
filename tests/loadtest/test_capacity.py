"""What the client can send."""

import pytest

from loadtest.capacity import Capacity, capacity_command, capacity_table
from loadtest.errors import LoadTestError


def test_the_command_prints_what_workers_can_send(capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity_command(["--duration", "0.3", "--workers", "1", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["workers", "requests/s"]
    for workers, line in zip((1, 2), lines[1:3], strict=True):
        number, rate, share, per_cpu = line.split()
        assert int(number) == workers
        assert float(rate) > 0
        assert 0 < float(share.rstrip("%")) <= 110
        assert float(per_cpu) > 0


def test_the_table_compares_numbers_of_workers_and_names_the_cores() -> None:
    one, two = Capacity(1, 1000.0, 0.5), Capacity(2, 1100.0, 0.3)
    assert "2 workers against 1: 1.10 times" in capacity_table([one, two], cores=4)
    few = capacity_table([one, two], cores=2)
    # 2 × 1100 / 2 / 0.3 over 1000 / 0.5
    assert "1.83 times by the CPU time" in few
    assert "has 2 for workers" in few


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(LoadTestError, match="nothing to measure"):
        capacity_command(["--workers", "0"])
