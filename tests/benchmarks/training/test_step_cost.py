"""The benchmark command, on shapes small enough for a test."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.training import measurement as measure
from benchmarks.training import step_cost as benchmark
from training.cli import main


@pytest.mark.parametrize("version", benchmark.VERSIONS)
def test_every_version_can_be_measured(version: measure.Version) -> None:
    found = measure.measure(measure.Task(version, vocab_size=40, positions=12, repeats=1))
    assert found.cpu_seconds > 0
    assert found.peak_mib >= 0


def test_the_command_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(
        version: str, vocab_size: int, positions: int, budget: int, repeats: int
    ) -> benchmark.Row:
        return benchmark.Row(version, vocab_size, positions, budget, 3.0, 100.0)

    monkeypatch.setattr(benchmark, "measure_row", instead)
    assert main(["benchmark", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "| 2002 | 256 | official (quoted) | 9.29 | 1541 | 1.00 | 1.00 |" in printed
    assert "| 32002 | 128 | fast | 3.00 | 100 | 0.20 | 0.04 |" in printed
    assert "| 32 | 18944 |" in printed
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert len(rows) == 2 * 5 + 4


def test_a_measurement_runs_in_a_process_of_its_own() -> None:
    row = benchmark.measure_row("fast", 40, 12, budget=1, repeats=1)
    assert math.isfinite(row.cpu_seconds)


def test_no_repeats_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--repeats", "0"]) == 1
    assert "--repeats wants" in capsys.readouterr().err
