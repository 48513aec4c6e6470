"""Rows for lm-evaluation-harness, which loads this file by its path: those of our own tasks."""

from pathlib import Path
from typing import Any

from datasets import load_dataset  # type: ignore[import-untyped]

_TASKS = Path(__file__).parents[1] / "tasks"


def _rows(path: Path) -> dict[str, Any]:
    return {"test": load_dataset("json", data_files=str(path), split="train")}


def choices(**_: Any) -> dict[str, Any]:
    """CommonsenseQA's columns."""
    return _rows(_TASKS / "demo-choices.jsonl")


def texts(**_: Any) -> dict[str, Any]:
    """Documents."""
    return _rows(_TASKS / "demo-text.jsonl")


def numbers(**_: Any) -> dict[str, Any]:
    """GSM8K's columns."""
    return _rows(_TASKS / "demo-numbers.jsonl")


def spelled(**_: Any) -> dict[str, Any]:
    """GSM8K's columns; what `scripts/smollm2` has written."""
    return _rows(Path("runs/smollm2/text/held-out-numbers.jsonl"))
