"""Checkouts whose every measure is known."""

from collections.abc import Mapping
from pathlib import Path

import pytest

COPIED = "".join(f"    total += value * {number}  # step {number}\n" for number in range(6))
FILES = {
    "one/__init__.py": '"""A package."""\n',
    "one/__main__.py": "def main() -> None: ...\n",
    "one/first.py": "import one.second\n\nSIZE: int = 1\n\n\ndef main() -> None:\n    pass\n",
    "one/second.py": f"from one import first\n\nSIZE = 2\n\n\ndef add(value, total):\n{COPIED}",
    "one/deep/third.py": f"def add(value: int, total: int) -> None:\n\n{COPIED}",
    "two/__init__.py": "",
    "two/lazy.py": "_SIZE = 3\nSIZE = 3\n\n\ndef later() -> None:\n    from two import other\n",
    "two/other.py": "import two.lazy\n",
    "tests/test_one.py": "def test() -> None: ...\n",
}


def checkout_of(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return checkout_of(tmp_path / "checkout", FILES)
