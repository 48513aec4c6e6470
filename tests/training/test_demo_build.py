"""From a trunk to a taught model with its card, tables and plots, in a size that proves nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from quietstar_infer.checkpoint import check_checkpoint
from training.cli import main
from training.plots import draw_plots
from training.report import accuracy_table, percent, table, tables

TRUNK = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "model"
    assert main(["demo-model", "--out", str(folder), "--trunk", str(TRUNK), "--quick"]) == 0
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return content


def test_the_checkpoint_is_whole_and_new(folder: Path) -> None:
    check_checkpoint(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    former, now = (load_file(path / "model.safetensors")[name] for path in (TRUNK, folder))
    assert (former != now).any()


def test_what_was_measured(results: dict[str, Any]) -> None:
    assert set(results["trunk"]) == {"dial", "story"}
    assert len(results["controls"]) == len(results["thinkers"]) == 2
    thinker = results["thinkers"][0]
    assert [entry["step"] for entry in thinker["course"]] == [0, 1, 2]
    assert len(thinker["thoughts"]) == 3
    tokens = thinker["sampled"]["tokens"]["12"]
    counted = {kind: sum(counts) for kind, counts in tokens["histogram"].items()}
    assert counted == {kind: tokens["kinds"][kind]["tokens"] for kind in counted}


def test_card_tables_and_plots(folder: Path, results: dict[str, Any], tmp_path: Path) -> None:
    assert accuracy_table(results) in (folder / "README.md").read_text(encoding="utf-8")
    assert tables(results).count("| --- |") == 6
    files = draw_plots(results, tmp_path)
    assert len(files) == 3
    assert all(file.read_text(encoding="utf-8").startswith("<?xml") for file in files)


def test_tables() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    assert percent([0.5]) == "50.0"
    assert percent([0.5, 0.6]) == "55.0 ± 7.1"
