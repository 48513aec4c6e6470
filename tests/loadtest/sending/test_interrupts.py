"""Ctrl-C, at every moment of a run."""

import multiprocessing
import os
import signal

import pytest

from loadtest.analysis.summary import summarise
from loadtest.records import Failure
from loadtest.reporting.report import render
from loadtest.sending.progress import NoWatcher, Snapshot
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, running
from loadtest.traffic.plan import Extent
from tests.support.loadtest.records import made_run
from tests.support.loadtest.runs import InterruptAfter, small_plan

pytestmark = pytest.mark.slow


def test_ctrl_c_keeps_what_was_measured() -> None:
    with running(Behaviour(first=0.5)) as url:
        plan = small_plan(
            url, ["constant:20", "closed:1"], requests=None, seconds=60.0, max_in_flight=8
        )
        cells = list(run_cells(prepare(plan), InterruptAfter(3)))
    (cell,) = cells
    assert cell.partial
    assert "Ctrl-C" in cell.warnings[0]
    assert 0.5 < cell.window[1] < 60
    failures = [record.failure for record in cell.records]
    assert failures.count(None) >= 3
    assert failures.count(Failure.CUT) == 8
    assert Failure.UNSENT in failures  # twice as many are due as the client may have in flight
    indices = [record.index for record in cell.records]
    assert sorted(indices) == list(range(len(indices)))


def test_ctrl_c_while_a_cell_warms_up_leaves_a_report() -> None:
    with running(Behaviour(first=0.01)) as url:
        plan = small_plan(url, "closed:2", extent=Extent(seconds=60.0, warmup=60.0))
        (cell,) = run_cells(prepare(plan), InterruptAfter(3))
    assert cell.partial
    assert cell.window == (60, 60)
    assert all(record.warmup for record in cell.records)
    page = render(summarise(made_run([cell])))
    assert "nothing was measured" in page
    assert "interrupted with Ctrl-C" in page


def test_ctrl_c_does_not_reach_the_workers() -> None:
    class ToAll(InterruptAfter):
        def press(self) -> None:
            # As a terminal does.
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGINT)
            super().press()

    with running(Behaviour(first=0.05)) as url:
        plan = small_plan(url, "closed:2", requests=None, seconds=60.0, workers=2)
        (cell,) = run_cells(prepare(plan), ToAll(0))
    assert "Ctrl-C" in cell.warnings[0]
    assert cell.client is not None
    assert cell.client.workers == 2


def test_a_second_ctrl_c_ends_at_once() -> None:
    class Impatient(NoWatcher):
        def update(self, snapshot: Snapshot) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with running(Behaviour(first=0.5)) as url:
        plan = small_plan(url, "constant:20", requests=None, seconds=60.0)
        with pytest.raises(KeyboardInterrupt):
            list(run_cells(prepare(plan), Impatient()))
