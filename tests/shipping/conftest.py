"""A stand-in for Python that writes down what it was asked to do: installs take no time."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Asked for a virtual environment, it puts itself there; a script on its standard input (the version
# check) is for the real Python; all else is written down.
FAKE_PYTHON = """#!/bin/bash
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "- ") exec python3 "$@" ;;
    "--version ") echo Python 3.99 ;;
    *) echo "LD_PRELOAD=${LD_PRELOAD:-} $*" >> "$CALLS"; exit "${FAIL:-0}" ;;
esac
"""


@dataclass
class Sandbox:
    """A copy of what an install reads, where Python only pretends."""

    root: Path

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        python = self.root / "fake-python"
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        # Only what is given: the VENV of a surrounding make must not leak in.
        clean = {"PATH": os.environ["PATH"], "PYTHON": str(python), "CALLS": str(self.calls_file)}
        return subprocess.run(
            command, cwd=self.root, env=clean | env, capture_output=True, text=True
        )

    @property
    def calls_file(self) -> Path:
        return self.root / "calls"

    def calls(self) -> list[str]:
        """What Python was asked to do since the last time this was asked."""
        if not self.calls_file.exists():
            return []
        calls = self.calls_file.read_text().splitlines()
        self.calls_file.unlink()
        prefixes = "LD_PRELOAD= ", "-m pip --disable-pip-version-check --no-input "
        for prefix in prefixes:
            calls = [call.removeprefix(prefix) for call in calls]
        return calls


def copy(paths: list[str], target: Path) -> None:
    for path in paths:
        source = ROOT / path
        if source.is_dir():
            caches = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / path, ignore=caches, dirs_exist_ok=True)
        else:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / path)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    copy(["Makefile", "pyproject.toml", "requirements", "scripts", ".ci"], tmp_path)
    (tmp_path / "server").mkdir()
    (tmp_path / "server/__init__.py").touch()
    return Sandbox(tmp_path)
