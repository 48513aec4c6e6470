"""From nothing to a trained thinker with its card, tables and plots, in a tiny size."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from quietstar_infer.checkpoint import check_checkpoint
from tests.support.servers import DEMO
from training.cli import main
from training.demo.adaptive.table import adaptive_table
from training.demo.base_model_build import EXAMPLE_PROMPT, build_base_model
from training.demo.build import build_demo_model
from training.demo.plots import draw_plots
from training.demo.recipe import DemoRecipe, quick
from training.demo.report import accuracy_table, percent, tables
from training.markdown import markdown_table

pytestmark = pytest.mark.slow


def make(folder: Path, *options: str) -> Path:
    assert main(["demo-model", "--out", str(folder), "--quick", *options]) == 0
    return folder


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("demo") / "model")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return content


def test_the_checkpoint_is_complete_and_trained(folder: Path) -> None:
    check_checkpoint(folder)
    assert {file.name for file in folder.iterdir()} == {file.name for file in DEMO.iterdir()}
    assert load_file(folder / "model.safetensors")["talk_head.0.4.weight"].any()
    section = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quiet_star"]
    assert section["trained_on"] == "generated dial puzzles, word problems and plain sentences"
    assert section["example_prompt"] == EXAMPLE_PROMPT
    assert section["default_thought_budget"] == 12


def test_building_again_gives_the_same(
    folder: Path, results: dict[str, Any], tmp_path: Path
) -> None:
    recipe = replace(quick(DemoRecipe()), seeds=(0,))
    base, again = tmp_path / "base", tmp_path / "again"
    build_base_model(recipe.base_model, base)
    again.mkdir()
    built = build_demo_model(recipe, again, base, workers=1)
    results_again = json.loads(json.dumps(built))
    for name in ("model.safetensors", "thought_gate.safetensors", "config.json", "tokenizer.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    for measured in ("thinkers", "controls"):
        assert results_again[measured][0] == results[measured][0]
    assert results_again["trunk"] == results["trunk"]
    assert results_again["adaptive"] == results["adaptive"]
    assert {**results_again["gate"], "checkpoint": folder.name} == results["gate"]


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
    assert tables(results).count("| --- |") == 7
    assert tables(results).startswith(adaptive_table(results))
    files = draw_plots(results, tmp_path)
    assert [file.stem for file in files] == [
        *("passes", "accuracy", "weight-course", "weight-distribution")
    ]
    assert all(file.read_text(encoding="utf-8").startswith("<?xml") for file in files)


def test_tables() -> None:
    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    assert percent([0.5]) == "50.0"
    assert percent([0.5, 0.6]) == "55.0 ± 7.1"
