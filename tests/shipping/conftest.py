"""A copy of the repository's scripts, and a stand-in for Python that only records its calls."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Asked for a virtual environment, it copies itself there. A script on its standard input (the
# checks of scripts/prerequisites) is run by the real Python. Every other call is only recorded.
FAKE_PYTHON = """#!/bin/bash
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "- "*) exec "$REAL_PYTHON" "$@" ;;
    "--version ") exec "$REAL_PYTHON" --version ;;
    *) echo "LD_PRELOAD=${LD_PRELOAD:-} $*" >> "$CALLS"; exit "${FAIL:-0}" ;;
esac
"""


@dataclass
class Sandbox:
    """A copy of what an install reads, with the stand-in for Python."""

    root: Path

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        python = self.root / "fake-python"
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        # Only what is given: the VENV of a surrounding make must not leak in.
        clean = {
            "PATH": os.environ["PATH"],
            "PYTHON": str(python),
            "REAL_PYTHON": str(Path(sys.executable).resolve()),
            "CALLS": str(self.calls_file),
        }
        return subprocess.run(
            command, cwd=self.root, env=clean | env, capture_output=True, text=True
        )

    @property
    def calls_file(self) -> Path:
        return self.root / "calls"

    def calls(self) -> list[str]:
        """The calls of Python since the last call of this."""
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


def tools(folder: Path, *names: str, **scripts: str) -> str:
    """Makes a folder for PATH, with links to these tools of the system and with these scripts."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or "")
    for name, script in scripts.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    copy(["Makefile", "pyproject.toml", "requirements", "scripts", ".ci"], tmp_path)
    (tmp_path / "server").mkdir()
    (tmp_path / "server/__init__.py").touch()
    return Sandbox(tmp_path)
