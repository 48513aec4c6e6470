"""How fast text is scored."""

from pathlib import Path

import pytest

from benchmarks.training.cli import run_benchmark

DEMO = Path(__file__).parents[3] / "models" / "demo"


def test_scoring_speed_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--tokens", "6", "--rounds", "1", "--budgets", "0", "2"]
    assert run_benchmark(["scoring-speed", str(DEMO), *sizes]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert "parallel, tokens/s" in head
    assert rule.startswith("| ---")
    assert [row.split("|")[1].strip() for row in rows] == ["0", "2"]
    assert all(float(row.split("|")[6]) > 0 for row in rows)
