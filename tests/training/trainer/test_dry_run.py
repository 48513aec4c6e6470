"""What a run would take, before it begins."""

from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import pytest
import torch

from quietstar_infer.config import load_tokenizer
from tests.support.checkpoints import TOKENIZER
from tests.support.training.runs import small_recipe
from training.cli import main
from training.trainer.build import build
from training.trainer.control import control_of
from training.trainer.data import load_pieces
from training.trainer.dry_run import (
    ModelSize,
    count_pieces,
    dry_run,
    operations,
    sample_batch,
    step_size,
)
from training.trainer.recipe import Recipe, save_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def lora_recipe(folder: Path, **sections: Any) -> Recipe:
    return small_recipe(folder, **{"model": {"lora": {"rank": 2, "alpha": 4}}, **sections})


def test_a_dry_run_reports_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe(tmp_path)
    file = tmp_path / "recipe.yaml"
    save_recipe(recipe, file)
    assert main(["train", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert not recipe.run.output.exists()
    pieces = load_pieces(recipe, load_tokenizer(TOKENIZER))
    tokens = sum(len(row["input_ids"]) for row in pieces.train)
    assert f"| train | {len(pieces.train)} | {tokens} | 16 |" in printed
    assert f"takes {len(pieces.train) // 4} steps of 4 sequences" in printed
    for name in ("estimated", "one real step"):
        (line,) = (line for line in printed.splitlines() if line.startswith(f"| {name} |"))
        assert all(float(cell) > 0 for cell in line.split("|")[2:5])


def test_a_streamed_text_is_not_counted(tmp_path: Path) -> None:
    printed = dry_run(small_recipe(tmp_path, data={"streaming": True}))
    assert "| train | the first " in printed
    assert "The text is streamed; 4 steps take 16 pieces." in printed


def test_the_sample_has_the_longest_piece(tmp_path: Path) -> None:
    recipe = lora_recipe(tmp_path, data={"pieces": "window"}, optimisation={"window": 40})
    built = build(recipe)
    train = load_pieces(recipe, built.tokenizer).train
    counted = count_pieces(train)
    batch = sample_batch(recipe, built, train, torch.device("cpu"))
    assert batch.input_ids_BT.shape == (recipe.run.sequences_per_device, counted.longest)
    # START, 2 thought tokens, END and 1 true token, twice at every position.
    assert step_size(recipe, batch).paths == batch.input_ids_BT.numel() * 2 * 5


def test_what_is_counted_as_operations(tmp_path: Path) -> None:
    """Frozen weights need a third less of everything but the rollout, a control no paths, and what
    is recomputed costs more.
    """
    recipe = lora_recipe(tmp_path)
    built = build(recipe)
    size = ModelSize.of(built.model, lora=True)
    assert size.trained < size.weights - size.linear
    batch = sample_batch(
        recipe, built, load_pieces(recipe, built.tokenizer).train, torch.device("cpu")
    )
    counts = {
        what: operations(lora_recipe(tmp_path, run={"recompute": what}), size, step)
        for what, step in (
            *(("nothing", step_size(recipe, batch)), ("mlp", step_size(recipe, batch))),
            ("layer", step_size(recipe, batch)),
        )
    }
    assert counts["nothing"] < counts["mlp"] < counts["layer"]
    full = ModelSize(**{**vars(size), "lora": False})
    step = step_size(recipe, batch)
    nothing = lora_recipe(tmp_path, run={"recompute": "nothing"})
    extra = operations(nothing, full, step) - operations(nothing, size, step)
    text = batch.input_ids_BT.numel()
    scored = text * (1 + 2 * 2 + 2 * 2)
    assert extra == 2 * (size.linear * (step.text + step.paths) + size.head * scored)
    control = control_of(nothing)
    expected = 2 * 2 * text * (size.linear + size.head)
    assert operations(control, size, step_size(control, batch)) == expected
