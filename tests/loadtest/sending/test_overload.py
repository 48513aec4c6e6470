"""Overload: a server of known capacity, the rate at which it breaks, and when a cell stops."""

import json
from collections import Counter
from pathlib import Path

import pytest

from loadtest.analysis.summary import summarise
from loadtest.cli import main
from loadtest.records import Failure
from loadtest.reporting.results import load_run
from loadtest.testserver import Behaviour, running
from loadtest.traffic.plan import Extent, StopRules
from tests.support.loadtest.records import made_run
from tests.support.loadtest.runs import prompts_file, run, run_one, small_plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("reused_workers")]

# Two answers at once of a tenth of a second each: 20 requests per second.
LIMITED = Behaviour(first=0.1, slots=2)


def test_a_ramp_has_a_row_per_step_and_the_highest_rate_that_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    with running(LIMITED) as url:
        arguments = ["--url", url, "--budgets", "0", "--load", "ramp:8-56@9s,steps=3"]
        more = ["--warmup", "0", "--output-tokens", "1", "--drain", "0.5", "--out", str(folder)]
        assert main([*arguments, *more]) == 0
    out = capsys.readouterr().out.splitlines()
    (held,) = (line for line in out if line.startswith("budget 0: held at"))
    assert held.startswith("budget 0: held at 8 requests per second, broke at 32 (")
    assert held in (folder / "report.html").read_text()
    (load,) = summarise(load_run(folder)).loads
    assert [row.rate for row in load.steps] == [8, 32, 56]
    completed = [row.repeats[0].completed_rate for row in load.steps]
    assert completed[0] == pytest.approx(load.steps[0].repeats[0].due_rate, rel=0.3)
    assert all(0 < rate <= 20.5 for rate in completed[1:])
    lines = (folder / "summary.csv").read_text().splitlines()
    assert [line.count(", step ") for line in lines] == [0, 0, 1, 1, 1]
    # It waited half a second for last answers, and not for the whole queue.
    (cell,) = load_run(folder).cells
    assert not cell.partial
    assert max(record.finished or 0.0 for record in cell.records) < 9 + 0.5 + 0.6
    late = [record for record in cell.records if record.failure is Failure.UNDRAINED]
    assert len(late) > 40
    assert late[0].message == "not answered 0.5 s after the last request was due"


def test_a_server_that_falls_behind_stops_the_cell_but_not_the_run() -> None:
    extent = Extent(seconds=60.0, drain=1.0)
    rules = StopRules(over_saturation=True)
    with running(LIMITED) as url:
        plan = small_plan(url, "poisson:60", "0,1", extent=extent, tokens="1", stops=rules)
        cells = run(plan)
    assert len(cells) == 2
    for cell in cells:
        assert cell.stopped is not None
        assert cell.stopped.startswith("over-saturated: in the last 10 s")
        assert "stopped, as asked, after" in cell.warnings[0]
        assert not cell.partial
        assert cell.window[1] < 20


def test_a_server_that_keeps_up_is_not_stopped() -> None:
    extent = Extent(seconds=12.0)
    rules = StopRules(error_rate=0.5, over_saturation=True)
    with running(Behaviour(first=0.1, slots=4)) as url:  # 40 per second
        cell = run_one(small_plan(url, "poisson:12", extent=extent, tokens="1", stops=rules))
    assert cell.stopped is None
    assert cell.window == (0, 12)


@pytest.mark.parametrize("load", ["closed:2", "constant:100"])
def test_too_many_failures_stop_the_cell(url: str, tmp_path: Path, load: str) -> None:
    prompts = prompts_file(tmp_path, "fault:http", "one", "two", "three")
    plan = small_plan(
        url, load, requests=5000, prompts=prompts, stops=StopRules(error_rate=0.2), tokens="1"
    )
    cell = run_one(plan)
    assert cell.stopped is not None
    assert "more than the allowed 20.0%" in cell.stopped
    assert len(cell.records) < 4000
    kinds = Counter(record.failure for record in cell.records)
    assert kinds[Failure.HTTP] >= 5


def test_the_stop_is_in_the_results(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "fault:http"}) + "\n" + json.dumps({"prompt": "one"}))
    arguments = ["--url", url, "--budgets", "0", "--prompts", str(prompts), "--requests", "5000"]
    more = ["--warmup", "0", "--output-tokens", "1", "--error-rate", "0.1", "--out", str(folder)]
    assert main([*arguments, *more]) == 0
    (cell,) = load_run(folder).cells
    assert cell.stopped is not None
    assert "requests failed, more than the allowed 10.0%" in (folder / "report.html").read_text()
    assert summarise(made_run([cell])).rows[0].left_out is None
