"""The progress bar, and other loggers."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from training.errors import UsageError
from training.trainer.callbacks import SHOWN, ThinkingProgress, loggers

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


class Bar:
    """What a progress bar was told."""

    shown: dict[str, str]

    def set_postfix(self, shown: dict[str, str]) -> None:
        self.shown = shown


def test_a_step_shows_losses_and_gain_and_not_the_objective(tmp_path: Path) -> None:
    progress: Any = ThinkingProgress()
    progress.training_bar = bar = Bar()
    logs: dict[str, Any] = {"loss": -31.5, "reward": -2.0, "nll": 4.25, "base_nll": 4.5}
    logs |= {"gain": 0.25, "mixing_weight": 0.04, "learning_rate": 1e-5}
    progress.on_log(TrainingArguments(str(tmp_path)), TrainerState(), TrainerControl(), logs)
    assert bar.shown == {"nll": "4.25", "base_nll": "4.5", "gain": "0.25", "mixing_weight": "0.04"}


@pytest.mark.parametrize("name", [*SHOWN, "loss", "learning_rate", "reward", "thought_repeated"])
def test_every_number_is_explained(name: str) -> None:
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    assert any(f"`{name}`" in row.split(" | ")[0] for row in rows)


def test_loggers_that_cannot_be_used_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    for names, said in (
        (["wandbb"], "run.report_to has 'wandbb', expected some of azure_ml, "),
        (["tensorboard"], r"'tensorboard' \(every run writes tensorboard\), expected some of"),
        (["wandb"], "run.report_to has 'wandb', which cannot be used: .*pip install wandb"),
    ):
        with pytest.raises(UsageError, match=said):
            list(loggers(names))
    assert list(loggers([])) == []
