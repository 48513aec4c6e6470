"""`python -m benchmarks.training`, on shapes small enough for a test."""

import json
from pathlib import Path

import pytest

from benchmarks.training import step_cost
from benchmarks.training.cli import run_benchmark
from training.cli import main


def test_the_command_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(
        version: str, vocab_size: int, positions: int, budget: int, repeats: int
    ) -> step_cost.StepCost:
        return step_cost.StepCost(version, vocab_size, positions, budget, 3.0, 100.0)

    monkeypatch.setattr(step_cost, "measure_cost", instead)
    assert run_benchmark(["step", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "| 2002 | 256 | official (quoted) | 9.29 | 1541 | 1.00 | 1.00 |" in printed
    assert "| 32002 | 128 | fast | 3.00 | 100 | 0.20 | 0.04 |" in printed
    assert "| 32 | 18944 |" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures) == 2 * 5 + 4


def test_no_repeats_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark(["step", "--repeats", "0"]) == 1
    assert "--repeats wants" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "new"), [("benchmark", "step"), ("scoring-speed",) * 2])
def test_the_trainers_command_line_tells_the_new_command(
    name: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--repeats", "3"]) == 2
    assert capsys.readouterr().err == (
        f"error: {name} is now `python -m benchmarks.training {new}`\n"
    )
