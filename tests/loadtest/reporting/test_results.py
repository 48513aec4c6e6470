"""Files: what is written can be read, whatever happened in between."""

import csv
import json
from pathlib import Path

import pytest

from loadtest.analysis.named import NAMED
from loadtest.analysis.summary import summarise
from loadtest.errors import LoadTestError
from loadtest.records import Run
from loadtest.reporting.results import Recorder, load_run, write_summary
from tests.support.loadtest.records import (
    as_version_1,
    gated,
    made_cell,
    made_record,
    made_run,
    written,
)


def test_what_is_written_is_read_again(run: Run, tmp_path: Path) -> None:
    folder = written(run, tmp_path / "results")
    assert load_run(folder) == run
    assert load_run(folder / "run.json") == run


def test_run_json_explains_itself(run: Run, tmp_path: Path) -> None:
    content = json.loads((written(run, tmp_path / "results") / "run.json").read_text())
    assert set(content["about"]["figures"]) == set(NAMED)
    figures = content["cells"][0]["figures"]["all"]
    assert figures["requests"] == len(run.cells[0].records)
    assert set(content["cells"][-1]["figures"]) == {"all", "0", "4", "16"}
    assert "records" not in content["cells"][0]


def test_a_folder_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="never overwritten"):
        Recorder(tmp_path, run)


def test_a_newer_schema_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    file = written(run, tmp_path / "results") / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    with pytest.raises(LoadTestError, match=r"schema version 99, this program reads up to 3"):
        load_run(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "is no run.json"),
        ("run.json", "[]", "is no run.json"),
        ("run.json", '{"schema_version": 1, "cells": []}', "label: Field required"),
        ("requests.jsonl", "{}\n{}\n", "line 1: no record"),
    ],
)
def test_broken_files_are_one_line(
    run: Run, tmp_path: Path, name: str, content: str, message: str
) -> None:
    folder = written(run, tmp_path / "results")
    (folder / name).write_text(content)
    with pytest.raises(LoadTestError, match=message) as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)


def test_missing_files_are_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="does not exist"):
        load_run(tmp_path / "nowhere")
    folder = written(run, tmp_path / "results")
    (folder / "requests.jsonl").unlink()
    with pytest.raises(LoadTestError, match=r"requests\.jsonl is missing"):
        load_run(folder)


def test_a_crash_in_the_middle_of_a_cell_loses_nothing_measured(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "results", made_run([]))
    cell = made_cell([made_record(n, n / 10) for n in range(50)], (0.0, 5.0))
    recorder.begin(cell.model_copy(update={"records": [], "client": None, "partial": True}))
    for record in cell.records:
        recorder.record(record)
    # The program dies here, in the middle of a line, and closes nothing.
    with (tmp_path / "results/requests.jsonl").open("a") as file:
        file.write('{"cell": 0, "ind')
    run = load_run(tmp_path / "results")
    assert run.cells[0].records == cell.records
    assert run.cells[0].partial
    summary = summarise(run)
    assert summary.rows[0].repeats[0].succeeded == 50
    assert any("torn" in warning for warning in summary.warnings)
    assert any("cut short" in warning for warning in summary.warnings)
    recorder.close()


def test_the_csv_has_a_row_for_each_repeat_and_part(run: Run, tmp_path: Path) -> None:
    write_summary(summarise(run), tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 2 + 4
    assert set(NAMED) < set(rows[0])
    assert float(rows[0]["requests"]) == 80
    assert {row["budget"] for row in rows[-4:]} == {"all", "0", "4", "16"}


def test_every_file_is_keyed_by_budget_and_threshold(tmp_path: Path) -> None:
    run = made_run(gated())
    folder = written(run, tmp_path / "results")
    assert load_run(folder) == run
    keys = {("0", None), ("8", 0.0), ("8", 0.1), ("8", 0.5)}
    cells = json.loads((folder / "run.json").read_text())["cells"]
    assert {(*cell["budgets"], cell["threshold"]) for cell in cells} == keys
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert {(str(line["budget"]), line.get("threshold")) for line in lines} == keys
    write_summary(summarise(run), folder / "summary.csv")
    with (folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4
    passes = {
        (row["budget"], row["threshold"]): float(row["passes_per_visible_token"]) for row in rows
    }
    assert passes == {("0", ""): 1, ("8", "0.0"): 9, ("8", "0.1"): 3.25, ("8", "0.5"): 1}


def test_results_without_thresholds_are_read(run: Run, tmp_path: Path) -> None:
    """Those of schema version 1, before there were any."""
    folder = as_version_1(written(run, tmp_path / "results"))
    read = load_run(folder)
    assert {cell.threshold for cell in read.cells} == {None}
    assert [cell.records for cell in read.cells] == [cell.records for cell in run.cells]
