"""The server's own metrics."""

import pytest

from tests.support.loadtest.runs import run_one, small_plan

pytestmark = pytest.mark.usefixtures("reused_workers")


def test_the_servers_counters_are_read_before_and_after(url: str) -> None:
    cell = run_one(small_plan(url, requests=10))
    before, after = cell.server["vllm:request_success_total"]
    assert after - before == 10


def test_the_servers_batch_is_sampled_while_the_cell_runs(
    delayed_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.client.counters._PERIOD", 0.2)
    cell = run_one(small_plan(delayed_url, "closed:3", requests=None, seconds=0.8))
    during = [sample.running for sample in cell.occupancy if 0 < sample.time < 0.8]
    assert during
    assert max(during) in (2, 3)  # one of them may be between two requests
    assert {sample.waiting for sample in cell.occupancy} == {0}
