"""Table, JSON and plot."""

import json
import re
from dataclasses import replace
from pathlib import Path

from benchmarks.engine.machine import describe_machine
from benchmarks.engine.report import measures_table, write_json, write_plot
from tests.support.benchmarking import MEASURED


def test_table_json_and_plot(tmp_path: Path) -> None:
    missed = replace(MEASURED, name="official", at_least=True, limit=500)
    lines = measures_table([MEASURED, missed]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.search(r"\| thought pass 3 ms \| stock step 4 ms \|  0.75 \| 0.7 – 0.9 \|", lines[2])
    assert lines[2].endswith("|    ≤ 0.8 |     yes |")
    assert lines[3].endswith("|    ≥ 500 |      no |")

    machine = describe_machine()
    write_json(tmp_path / "figures.json", machine, "table", [MEASURED.figures(), missed.figures()])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["schema"] == 1
    assert figures["benchmark"] == "table"
    assert figures["machine"]["cores"] == machine.cores
    assert figures["results"][0]["ratios"] == [0.7, 0.75, 0.9]
    assert (figures["results"][0]["ratio"], figures["results"][0]["is_met"]) == (0.75, True)

    write_plot(tmp_path / "plot.svg", machine, [MEASURED, missed])
    assert "official" in (tmp_path / "plot.svg").read_text()
