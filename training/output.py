"""Folders and files that commands write."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import UsageError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def prepare_output(folder: Path, *, force: bool) -> None:
    """Make the output folder; raise `UsageError` if it holds files and `force` is off."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out wants a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} is not empty; add --force to write over it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}")
