"""The command that measures source code."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.code.cli import print_measures

ROOT = Path(__file__).parents[3]


def test_two_checkouts_stand_side_by_side(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before"
    (before / "one").mkdir(parents=True)
    (before / "one/__init__.py").touch()
    (before / "one/first.py").write_text("SIZE = 1\n")
    assert print_measures([str(checkout), "--against", str(before)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["one", "two", "all", "tests"]
    assert lines[0].split() == ["files", *"2→5", *"–→3", *"2→8", *"–→1"]
    assert len({line.split("  ")[0] for line in lines}) == len(lines)


def test_names_are_listed_with_their_files(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_measures([str(checkout), "--names"]) == 0
    assert "\nSIZE: one/first.py, one/second.py\n" in capsys.readouterr().out


def test_a_folder_without_packages_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_measures([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} holds no Python package\n"


def test_help_says_what_is_measured_without_any_other_package() -> None:
    command = [sys.executable, "-S", "-m", "benchmarks.code", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--against" in done.stdout
