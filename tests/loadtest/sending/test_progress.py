"""What a watcher is told."""

import pytest

from loadtest.sending.progress import Phase
from loadtest.sending.runner import prepare, run_cells
from loadtest.traffic.plan import Extent
from tests.support.loadtest.runs import Watcher, small_plan

pytestmark = pytest.mark.usefixtures("reused_workers")


def test_a_watcher_sees_every_record_once(delayed_url: str) -> None:
    watcher = Watcher()
    plan = small_plan(delayed_url, "constant:10", extent=Extent(seconds=1.0, warmup=0.6))
    (cell,) = run_cells(prepare(plan), watcher)
    seen = [record.index for snapshot in watcher.snapshots for record in snapshot.fresh]
    assert sorted(seen) == sorted(record.index for record in cell.records)
    assert watcher.snapshots[0].phase is Phase.WARMUP
    assert watcher.snapshots[-1].phase is Phase.DRAINING
    last = watcher.snapshots[-1]
    assert (last.due, last.sent, last.finished, last.in_flight) == (16, 16, 16, 0)
