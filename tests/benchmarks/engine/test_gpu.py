"""Milliseconds per pass, for a model small enough for a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.engine.engine_handle import EngineHandle
from benchmarks.engine.gpu import GpuSettings, measure_passes, passes_table
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.shapes import TINY
from benchmarks.engine.spec import EngineSpec
from tests.support.benchmarking import ignore

pytestmark = pytest.mark.slow


def test_milliseconds_per_pass(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def instead(spec: EngineSpec) -> Iterator[EngineHandle]:
        running = both.stock if spec.thinking is None else both.ours
        monkeypatch.setattr(running, "wait_until_ready", lambda: None)
        yield running

    monkeypatch.setattr("benchmarks.engine.gpu.launched_engine", instead)
    # So many tokens that not even a busy front end receives all of them at once, in no time.
    asked = GpuSettings(TINY, batches=(1, 2), budgets=(0, 2), repeats=1, tokens=16, prompt=8)
    times = list(measure_passes(asked, "cpu", ignore))
    assert [(t.engine, t.batch, t.budget) for t in times] == [
        *(("stock", 1, 0), ("stock", 2, 0)),
        *(("thinking", 1, 0), ("thinking", 1, 2), ("thinking", 2, 0), ("thinking", 2, 2)),
    ]
    assert times[0].to_stock == 1
    for each in times:
        assert (each.of_bandwidth is not None) == (each.batch == 1)
        seconds_per_token = 1e-3 * each.ms * (each.budget + 1)
        assert each.tokens_per_second == pytest.approx(each.batch / seconds_per_token)
    assert len(passes_table(times).splitlines()) == 2 + len(times)
