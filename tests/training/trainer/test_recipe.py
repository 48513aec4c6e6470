"""Recipes: what they fill in, and what they say to a mistake."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.config import OFFICIAL, RECOMMENDED
from training.errors import UsageError
from training.trainer.recipe import first_difference, load_recipe, rates_end, save_recipe

ROOT = Path(__file__).parents[3]
SHORT = """
model: {source: here}
data: {path: text.jsonl}
run: {output: there}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_short_recipe_is_the_official_preset(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT))
    assert recipe.settings == OFFICIAL
    assert recipe.run.output == Path("there")


def test_a_section_overrules_a_preset_key_by_key(tmp_path: Path) -> None:
    text = SHORT + "preset: recommended\nthinking: {budget: 3}\n"
    recipe = load_recipe(write(tmp_path, text), ["optimisation.learning_rate=1e-5"])
    assert recipe.thinking == replace(RECOMMENDED.thinking, budget=3)
    assert recipe.optimisation == replace(RECOMMENDED.optimisation, learning_rate=1e-5)
    assert recipe.objective == RECOMMENDED.objective


def test_overrides_may_open_a_section(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT), ["model.lora.rank=4"])
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 4


def test_a_saved_recipe_is_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT), ["model.lora.target_modules=[q_proj]"])
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.stps=5", "run: unknown key 'stps'; did you mean steps?"),
        ("thinking.buget=5", "thinking: unknown key 'buget'; did you mean budget?"),
        ("model.lora.rnak=5", "model: lora: unknown key 'rnak'; did you mean rank?"),
        ("zzz=5", "unknown key 'zzz'; expected model, data, run"),
        ("preset=offical", "preset is 'offical', expected official, paper, recommended"),
        ("run.steps=many", "run.steps: Input should be a valid integer"),
        ("run.steps=0", "steps is 0, expected 1 or more"),
        ("data.pieces=sliced", "data.pieces: Input should be 'packed', 'joined' or 'window'"),
        ("thinking.budget=-1", "budget is -1, expected 0 or more"),
        ("run.steps", "expected section.key=value"),
        ("run.steps.more=1", "steps is not a section"),
        ("run.steps=[", "is not valid YAML"),
        ("run=5", "run is 5, expected keys such as output"),
        ("thinking=5", "thinking is 5, expected keys such as budget"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, override: str, said: str) -> None:
    text = SHORT.replace("there}", "there, steps: 3}")
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, text), [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a list", "a: [", "", "model: {source: here}"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*: No such file"):
        load_recipe(tmp_path / "no.yaml")


def test_differences(tmp_path: Path) -> None:
    path = write(tmp_path, SHORT)
    recipe = load_recipe(path)
    assert first_difference(recipe, load_recipe(path, ["run.steps=7", "run.output=x"])) is None
    assert first_difference(recipe, load_recipe(path, ["run.seed=7"])) == "run.seed"
    assert first_difference(recipe, load_recipe(path, ["preset=paper"])) == "objective.base_weight"


@pytest.mark.parametrize(
    "override",
    [
        *("run.keep=5", "run.eval_every=3", "run.log_every=2", "run.sample_thoughts=0"),
        *("run.export_dtype=bfloat16", "run.recompute=layer", "run.collapse_patience=9"),
        *("run.collapse_entropy=0.5", "run.collapse_repeated=0.5"),
        *(
            "data.title=words",
            "gate.epochs=3",
            "run.report_to=[wandb]",
            "optimisation.decay_steps=100",
        ),
    ],
)
def test_what_does_not_change_the_numbers_is_no_difference(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, SHORT)
    assert first_difference(load_recipe(path), load_recipe(path, [override])) is None


@pytest.mark.parametrize(
    "override",
    [
        *("run.bf16=true", "run.sequences_per_device=4", "run.seed=1", "data.path=other.txt"),
        *("data.pieces=window", "data.beginning=bos", "model.source=there", "model.lora.rank=4"),
        *("optimisation.warmup_steps=3", "thinking.budget=3", "objective.base_weight=0.1"),
    ],
)
def test_what_changes_the_numbers_is_a_difference(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, SHORT)
    found = first_difference(load_recipe(path), load_recipe(path, [override]))
    assert found is not None
    assert override.startswith(found)


def test_the_step_at_which_the_rates_end(tmp_path: Path) -> None:
    path = write(tmp_path, SHORT + "preset: recommended\n")
    for overrides, end in (
        (["run.steps=30"], 30),
        (["run.steps=30", "optimisation.decay_steps=40"], 40),
        (["run.steps=30", "optimisation.schedule=constant"], None),
    ):
        assert rates_end(load_recipe(path, overrides)) == end


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_recipes_that_are_shipped(path: Path) -> None:
    recipe = load_recipe(path)
    if path.stem.startswith("mistral-7b"):
        assert recipe.settings == OFFICIAL
        assert recipe.run.bf16
