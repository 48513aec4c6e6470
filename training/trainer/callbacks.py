"""Callbacks of a run: progress bar, the watch for collapsed thoughts, other loggers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import ProgressCallback

from training.errors import TrainingStopped, UsageError
from training.trainer.recipe import RunConfig

SHOWN = ("nll", "base_nll", "gain", "mixing_weight", "thought_entropy", "tokens_per_second")
"""What the progress bar shows of a step, explained in docs/training.md. Not the loss: with the
weighted policy term it rises and falls with the rewards, and looks like divergence."""


class ThinkingProgress(ProgressCallback):
    """Trainer's progress bar, with the latest numbers beside it instead of a line for each log."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show what was logged; a line of its own for an evaluation."""
        if self.training_bar is None or logs is None:
            return
        if "eval_nll" in logs:
            facts = {name: f"{value:.4g}" for name, value in logs.items() if name != "epoch"}
            self.training_bar.write(f"step {state.global_step}: {facts}")
        else:
            shown = {name: f"{logs[name]:.3g}" for name in SHOWN if name in logs}
            self.training_bar.set_postfix(shown)


class CollapseWatch(TrainerCallback):
    """Stops a run whose loss is NaN or infinite or whose thoughts have collapsed.

    It judges by the logged evaluations, so it works across a resume.
    """

    def __init__(self, run: RunConfig) -> None:
        self.run = run

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise `TrainingStopped`; the step that was evaluated is not saved."""
        run = self.run
        evaluations = [entry for entry in state.log_history if "eval_nll" in entry]
        if not math.isfinite(evaluations[-1]["eval_nll"]):
            raise TrainingStopped(
                f"the evaluation loss of step {state.global_step} is no number; the checkpoints in "
                f"{run.output} are whole. Try a lower learning rate"
            )
        latest = evaluations[-run.collapse_patience :]
        collapsed = [
            entry["eval_thought_entropy"] < run.collapse_entropy
            or entry["eval_thought_repeated"] > run.collapse_repeated
            for entry in latest
        ]
        if len(collapsed) == run.collapse_patience and all(collapsed):
            entropy, repeated = (
                latest[-1][f"eval_thought_{name}"] for name in ("entropy", "repeated")
            )
            raise TrainingStopped(
                f"the thoughts have collapsed: {run.collapse_patience} evaluations up to step "
                f"{state.global_step}, now {entropy:.2g} nats per thought token and {repeated:.0%} "
                f"of them repeated; the checkpoints in {run.output} are whole"
            )


def loggers(names: Sequence[str]) -> Iterator[TrainerCallback]:
    """transformers' callbacks that report to other services, by its names for them (wandb, mlflow
    …). Raises `UsageError` for one that it does not know or whose package is not installed, and for
    tensorboard, which every run writes.
    """
    known = sorted(INTEGRATION_TO_CALLBACK.keys() - {"tensorboard"})
    for name in names:
        if name not in known:
            written = " (every run writes tensorboard)" if name == "tensorboard" else ""
            raise UsageError(
                f"run.report_to has {name!r}{written}, expected some of {', '.join(known)}"
            )
        try:
            yield INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"run.report_to has {name!r}, which cannot be used: {reason}"
            ) from None
