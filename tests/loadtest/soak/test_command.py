"""The soak as a command, against real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.cli import main
from loadtest.records import Cell
from loadtest.reporting.results import load_run
from loadtest.reporting.watch import Watchers
from loadtest.sending.progress import Progress
from loadtest.sending.runner import Prepared, run_cells
from loadtest.testserver import Behaviour, running
from tests.support.loadtest.runs import InterruptAfter
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow


def test_all_is_well_with_a_good_server(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    options = ["--minutes", "0.05", "--clients", "4", "--seed", "1", "--out", str(folder)]
    status = main(["soak", "--url", server.url, *options])
    out, err = capsys.readouterr()
    assert status == 0, out + err
    assert out.splitlines()[-1] == "All is well."
    assert "sent," in err  # progress
    lines = out[out.index("requests sent") :].splitlines()
    counts = dict(line.rsplit(maxsplit=1) for line in lines if "  " in line)
    for zero in ("failed", "bad requests accepted", "thoughts shown without being asked for"):
        assert counts[zero] == "0"
    assert counts["of these, other than alone"] == "0"
    for name in ("requests sent", "answered", "answers asked for again", "thought tokens"):
        assert int(counts[name]) > 0
    assert int(counts["memory at the end, MiB"]) > 0
    # The measured requests have a report like those of any run.
    run = load_run(folder)
    (cell,) = run.cells
    assert {record.failure for record in cell.records} == {None}
    assert {record.budget for record in cell.records} <= {0, 4, 16}
    assert run.scenario == "soak"
    assert "beside the measured requests" in (folder / "report.html").read_text()


def test_ctrl_c_stops_the_clients_and_keeps_what_was_measured(
    server: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(prepared: Prepared, progress: Progress) -> Iterator[Cell]:
        return run_cells(prepared, Watchers([progress, InterruptAfter(3)]))

    monkeypatch.setattr("loadtest.soak.command.run_cells", interrupted)
    folder = tmp_path / "results"
    options = ["--minutes", "60", "--clients", "2", "--load", "constant:10", "--out", str(folder)]
    assert main(["soak", "--url", server.url, *options]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "WRONG: the soak was cut short"
    (cell,) = load_run(folder).cells
    assert cell.partial
    assert sum(record.failure is None for record in cell.records) >= 3


def test_no_server_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--url", "http://127.0.0.1:9"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_without_thought_budgets_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Behaviour(max_thought_budget=None)) as url:
        assert main(["soak", "--url", url]) == 2
    assert "has no thought budgets" in capsys.readouterr().err


def test_the_former_scenario_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenario", "soak", "--url", "http://127.0.0.1:9"]) == 2
    assert "`python -m loadtest soak --help`" in capsys.readouterr().err
