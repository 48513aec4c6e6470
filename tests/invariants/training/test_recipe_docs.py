"""The page about training names every key of a recipe with its values."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from training.config import PRESETS
from training.gate.settings import GateSettings
from training.trainer.recipe import DataConfig, Lora, ModelConfig, RunConfig

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
SECTIONS = {
    "model": ModelConfig,
    "model.lora": Lora,
    "data": DataConfig,
    "run": RunConfig,
    "gate": GateSettings,
}


def shown(value: Any) -> str:
    """A value as the page writes it."""
    if value is MISSING:
        return "required"
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def rows() -> Iterator[str]:
    """How the row of every key begins."""
    for section, kind in SECTIONS.items():
        for field in fields(kind):
            yield f"| `{section}.{field.name}` | {shown(field.default)} | "
    for section in ("thinking", "objective", "optimisation"):
        settings = [getattr(preset, section) for preset in PRESETS.values()]
        for field in fields(settings[0]):
            values = " | ".join(shown(getattr(one, field.name)) for one in settings)
            yield f"| `{section}.{field.name}` | {values} | "


@pytest.mark.parametrize("row", rows())
def test_every_key_is_explained(row: str) -> None:
    (line,) = (x for x in PAGE.read_text(encoding="utf-8").splitlines() if x.startswith(row))
    meaning = line.removeprefix(row).rstrip(" |")
    assert meaning
