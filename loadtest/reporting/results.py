"""The results folder.

    run.json         everything but the records, and the figures computed from them
    requests.jsonl   a line per request: {"cell": index in run.json, ...Record}
    summary.csv      the figures, a row per cell and budget
    report.html      the report

`requests.jsonl` grows while the test runs and `run.json` is replaced whenever a cell begins or
ends: whatever stops the program, what was measured until then can be read.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from loadtest.analysis.figures import ALL, figures
from loadtest.analysis.levels import parse_level
from loadtest.analysis.named import NAMED, named_figures
from loadtest.analysis.settings import mix_name
from loadtest.analysis.summary import Summary
from loadtest.errors import LoadTestError
from loadtest.records import SCHEMA_VERSION, Cell, Record, Run, window_up_to

RUN, REQUESTS, SUMMARY, REPORT = "run.json", "requests.jsonl", "summary.csv", "report.html"
ABOUT = {
    "what": "A load test: its settings, and the figures of each cell. A cell is one load on one "
    "thought budget or mix of budgets with one threshold, once.",
    "times": "seconds; in records since the cell's start",
    "records": f"{REQUESTS} beside this file: a line per request, `cell` is the index in `cells`",
    "percentiles": "nearest rank; only those that the number of values supports",
    "figures": {figure.name: f"{figure.meaning} [{figure.unit}]" for figure in NAMED.values()},
}


class Recorder:
    """Writes the results while the run goes on. Raises `OSError` where they cannot be written."""

    def __init__(self, folder: Path, run: Run) -> None:
        """Create the folder; raises `LoadTestError` if it exists already."""
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise LoadTestError(f"{folder} exists already; results are never overwritten") from None
        self.folder = folder
        self.run = run
        self._levels = [parse_level(text) for text in run.levels]
        self._cells: list[dict[str, Any]] = []
        # Line-buffered, so that a crash loses no line.
        self._requests: IO[str] = (folder / REQUESTS).open("x", encoding="utf-8", buffering=1)
        self.save()

    def begin(self, cell: Cell) -> None:
        """Add a planned cell, still without records, `partial` until it has ended."""
        self.run.cells.append(cell)
        self._cells.append(_cell_json(cell))
        self.save()

    def record(self, record: Record) -> None:
        """Add a request of the current cell that has ended."""
        line = {"cell": len(self.run.cells) - 1, **record.model_dump(exclude_defaults=True)}
        self._requests.write(json.dumps(line) + "\n")

    def end(self, cell: Cell) -> None:
        """Replace the current cell by the one with all records and figures."""
        self.run.cells[-1] = cell
        slices = [ALL] if len(cell.budgets) == 1 else [ALL, *cell.budgets]
        of_slices = {
            budget: named_figures(figures(cell, self._levels, budget)) for budget in slices
        }
        self._cells[-1] = {**_cell_json(cell), "figures": of_slices}
        self.save()

    def save(self) -> None:
        """Write run.json."""
        settings = self.run.model_dump(mode="json", exclude={"cells"})
        content = {"about": ABOUT, **settings, "cells": self._cells}
        replace_file(self.folder / RUN, json.dumps(content, indent=1))

    def close(self) -> None:
        """Close the file of requests."""
        self._requests.close()


def replace_file(path: Path, text: str) -> None:
    """Replace a file atomically, so that it can always be read; raises `OSError`."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
    except OSError:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def _cell_json(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(mode="json", exclude={"records"})


def load_run(path: Path) -> Run:
    """Read a results folder, given by its path or that of its run.json, with all records.

    Raises `LoadTestError` for anything else, and for results of a newer version.
    """
    file = path / RUN if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["schema_version"]
    except FileNotFoundError:
        raise LoadTestError(f"{file} does not exist; give a results folder or its {RUN}") from None
    except (ValueError, TypeError, KeyError):
        raise LoadTestError(f"{file} is no {RUN} of a load test") from None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise LoadTestError(
            f"{file} has schema version {version}, this program reads up to {SCHEMA_VERSION}: "
            "use the version of the load tester that wrote it, or a newer one"
        )
    try:
        run = Run.model_validate(
            {**content, "cells": [{**cell, "records": []} for cell in content["cells"]]}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LoadTestError(f"{file}: {where}: {first['msg']}") from None
    if not _read_records(file.with_name(REQUESTS), run.cells):
        run.warnings.append(f"the last line of {REQUESTS} is torn: the writing was cut short")
    run.cells = [cell if cell.client else _unfinished(cell) for cell in run.cells]
    return run


def _read_records(path: Path, cells: Sequence[Cell]) -> bool:
    """Add the records to their cells; False if the last line is incomplete."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise LoadTestError(f"{path} is missing; it belongs to the {RUN} beside it") from None
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            cells[content["cell"]].records.append(Record.model_validate(content))
        except (ValueError, TypeError, KeyError, IndexError):
            if number == len(lines):
                return False
            raise LoadTestError(f"{path}, line {number}: no record of a request") from None
    return True


def _unfinished(cell: Cell) -> Cell:
    """A cell that was started and did not end: its window ends with the last answer."""
    start = min((r.scheduled for r in cell.records if not r.warmup), default=0.0)
    end = max((r.finished for r in cell.records if r.finished is not None), default=start)
    window = (start, window_up_to(max(start, end)))
    return cell.model_copy(update={"window": window, "partial": True})


def write_summary(summary: Summary, path: Path) -> None:
    """The figures as CSV: a row per repeat of each row of the report."""
    levels = "; ".join(level.text for level in summary.levels)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    kinds = ["label", "load", "budgets", "budget", "threshold", "repeat", "partial", "levels"]
    writer.writerow([*kinds, *NAMED])
    for row in summary.rows_and_parts:
        for cell, repeat in zip(row.cells, row.repeats, strict=True):
            values = named_figures(repeat)
            writer.writerow(
                [
                    *(summary.run.label, row.load, mix_name(cell), row.budget, row.threshold),
                    *(cell.repeat + 1, cell.partial, levels),
                    *(values.get(name, "") for name in NAMED),
                ]
            )
    replace_file(path, text.getvalue())
