"""The control of a run, and what thoughts gain beyond it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import pytest

from quietstar_infer.checkpoint import load_gate
from quietstar_infer.config import QuietStarConfig
from tests.support.training.runs import small_recipe
from tests.training.trainer.test_run import history
from training.cli import main
from training.errors import UsageError
from training.gate.settings import GateSettings
from training.trainer.control import CONTROL, Gains, control_of, gains_table, run_gains, verdict
from training.trainer.export import export_run
from training.trainer.recipe import Recipe
from training.trainer.run import train


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The recipe of a run that has ended, with its control and its gate."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        gate = GateSettings(documents=20, document_tokens=12, epochs=2)
        recipe = replace(small_recipe(folder), control=True, gate=gate)
        train(recipe)
        yield recipe


def control_run(recipe: Recipe) -> Recipe:
    return control_of(recipe)


def test_a_control_has_no_thoughts_and_the_same_everything_else(tmp_path: Path) -> None:
    recipe = replace(small_recipe(tmp_path, "paper"), control=True)
    control = control_of(recipe)
    assert not control.settings.thinks
    assert (control.objective.base_weight, control.thinking.budget) == (1.0, 0)
    assert (control.data, control.optimisation, control.model) == (
        *(recipe.data, recipe.optimisation, recipe.model),
    )
    assert control.run == replace(recipe.run, output=recipe.run.output / CONTROL)
    assert control.thinking.ahead == recipe.thinking.ahead


def test_a_control_sees_the_same_text_in_the_same_order(compared: Recipe) -> None:
    ours, controls = history(compared, 4), history(control_run(compared), 4)
    first = [next(entry for entry in log if "base_nll" in entry) for log in (ours, controls)]
    # Before the first step's update the base model is the same: so is its loss of the same text.
    assert first[0]["base_nll"] == pytest.approx(first[1]["base_nll"], rel=1e-6)
    rates = [
        [entry["learning_rate"] for entry in log if "loss" in entry] for log in (ours, controls)
    ]
    assert rates[0] == rates[1]
    before = [log[0]["eval_base_nll"] for log in (ours, controls)]
    assert before[0] == pytest.approx(before[1], rel=1e-6)
    assert all(entry["eval_gain"] == 0 for entry in controls if "eval_gain" in entry)


def test_gains_are_those_beyond_the_control(
    compared: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = compared.run.output
    losses, controls = (
        [entry["eval_nll"] for entry in history(recipe, 4) if "eval_nll" in entry]
        for recipe in (compared, control_run(compared))
    )
    gains = run_gains(run)
    assert gains == ("run", controls[0], min(controls), min(losses))
    assert gains.alone == controls[0] - min(controls)
    assert gains.thoughts == min(controls) - min(losses)
    assert main(["gains", str(run)]) == 0
    assert verdict([gains]) in capsys.readouterr().out
    card = (run / "model" / "README.md").read_text()
    assert gains_table([gains]) in card
    assert verdict([gains]) in card
    assert (run / CONTROL / "model" / "config.json").exists()


def test_a_gate_is_fitted_at_the_end_of_the_run_to_the_thinker_alone(compared: Recipe) -> None:
    run = compared.run.output
    config = QuietStarConfig.from_checkpoint(run / "model")
    assert config.gate is not None
    assert config.gate.budgets == (compared.thinking.budget,)
    assert load_gate(run / "model", config) is not None
    assert "gate" in (run / "gate" / "gate.md").read_text()
    assert QuietStarConfig.from_checkpoint(run / CONTROL / "model").gate is None


def test_a_run_whose_control_is_missing_is_exported(compared: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(compared.run.output, run, ignore=shutil.ignore_patterns(CONTROL, "model"))
    card = (export_run(run) / "README.md").read_text()
    assert "The run's control has not been trained." in card


def test_a_run_without_a_control_says_so(compared: Recipe) -> None:
    with pytest.raises(UsageError, match="has no control; train with --control"):
        run_gains(control_run(compared).run.output)
    with pytest.raises(UsageError, match="has no evaluated checkpoint"):
        run_gains(compared.run.output / "model")


def test_a_plain_sentence_tells_noise_from_gain() -> None:
    def seeds(*thinking: float) -> list[Gains]:
        return [Gains(f"seed-{n}", 3.0, 2.5, loss) for n, loss in enumerate(thinking)]

    assert "Thoughts do not pay here." in verdict(seeds(2.6))
    assert "thoughts -0.1000 beyond it" in verdict(seeds(2.6))
    assert "One run does not tell" in verdict(seeds(2.4))
    assert "these runs do not show that thoughts pay" in verdict(seeds(2.49, 2.44, 2.55))
    assert verdict(seeds(2.30, 2.31)) == (
        "Training alone gained 0.5000 nats per token, thoughts +0.1950 beyond it, the mean of 2 "
        "runs. The standard deviation over seeds is 0.0071."
    )
    assert gains_table(seeds(2.30, 2.31)).splitlines()[-1].startswith("| mean |")
