"""The worker processes, and what passes between them and the main one."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.records import Failure
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, running
from loadtest.traffic.lengths import Constant
from tests.support.loadtest.runs import InterruptAfter, prompts_file, run_one, small_plan

pytestmark = pytest.mark.slow


def test_a_worker_that_dies_ends_the_run_and_keeps_what_the_others_have() -> None:
    class Killer(InterruptAfter):
        def press(self) -> None:
            next(iter(set(multiprocessing.active_children()) - servers)).kill()

    with running(Behaviour(first=0.05)) as url:
        servers = set(multiprocessing.active_children())
        plan = small_plan(url, "constant:40", requests=None, seconds=60.0, workers=2)
        (cell,) = run_cells(prepare(plan), Killer(10))
    assert cell.partial
    assert "a worker process died" in cell.warnings[0]
    assert sum(record.failure is None for record in cell.records) >= 10


@pytest.mark.parametrize("load", ["closed:2", "constant:100"])
def test_a_server_that_dies_ends_the_run(load: str) -> None:
    with running(Behaviour(gap=0.01, die_after=20)) as url:
        plan = small_plan(url, [load, "closed:1"], requests=None, seconds=60.0, workers=2)
        cells = list(run_cells(prepare(plan), NoWatcher()))
    (cell,) = cells  # the second one was not begun
    assert cell.partial
    assert "the server cannot be reached any more" in cell.warnings[0]
    assert cell.window[1] < 60
    failures = [record.failure for record in cell.records]
    assert Failure.CONNECTION in failures
    assert failures.count(None) >= 5


def test_megabytes_pass_between_the_processes(tmp_path: Path) -> None:
    """Prompts on their way to a worker, token times on their way back."""
    texts = [f"{number} {'word ' * 200}" for number in range(2000)]
    prompts = replace(prompts_file(tmp_path, *texts), output_lengths=Constant(20_000))
    with running() as url:
        cell = run_one(small_plan(url, prompts=prompts, requests=8))
    assert [record.visible_tokens for record in cell.records] == [20_000] * 8
