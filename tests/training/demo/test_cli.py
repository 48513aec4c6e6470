"""The demonstration's commands: mistakes are one clear line."""

from pathlib import Path

import pytest

from training.cli import main


def test_command_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo-trunk", "--out", str(tmp_path)]) == 2
    assert main(["demo-eval", str(tmp_path)]) == 1
    for arguments in (
        ["corpus", "--show", "-3"],
        ["demo-eval", str(tmp_path), "--temperature", "cold"],
        ["demo-trunk"],
        [],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    errors = capsys.readouterr().err
    assert "add --force" in errors
    assert "it has no config.json" in errors
    assert "'-3' is not a whole number from 1 to" in errors
    assert "'cold' is not a number from 0 up" in errors
    assert "Traceback" not in errors


def test_corpus_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "--show", "4", "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
