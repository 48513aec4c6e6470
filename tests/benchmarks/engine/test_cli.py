"""The command line."""

from pathlib import Path

import pytest

from benchmarks.engine.cli import benchmark_command


def test_a_wrong_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_command(["table", "--model", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["table", "--repeats", "0"], ["gpu", "--budgets", "-1"], ["fast"]]
)
def test_a_wrong_option_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark_command(arguments)
    assert stopped.value.code == 2
