"""The control of a run: the same data, steps and rates, without thoughts.

Whatever is trained on a text gets better at it. What thoughts are worth is what a run gains beyond
its control.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from transformers.trainer_utils import get_last_checkpoint

from training.errors import UsageError
from training.markdown import markdown_table
from training.trainer.recipe import Recipe

CONTROL = "control"
"""Its folder in that of the run."""


def control_of(recipe: Recipe) -> Recipe:
    """The control's recipe: the base model's likelihood has the weight of both."""
    objective = recipe.objective
    return replace(
        recipe,
        control=False,
        gate=None,
        thinking=replace(recipe.thinking, budget=0, per_position=1),
        objective=replace(
            objective,
            base_weight=objective.base_weight + objective.talk_weight,
            talk_weight=0.0,
            policy_weight=0.0,
        ),
        run=replace(recipe.run, output=recipe.run.output / CONTROL),
    )


class Gains(NamedTuple):
    """Losses in nats per token of the evaluation text: before training, and the lowest of the
    evaluations of the control and, with thoughts, of the run.
    """

    name: str
    before: float
    control: float
    thinking: float

    @property
    def alone(self) -> float:
        """What training alone gained."""
        return self.before - self.control

    @property
    def thoughts(self) -> float:
        """What thoughts gained beyond it."""
        return self.control - self.thinking


def run_gains(run: Path) -> Gains:
    """Those of a run that has a control; raises `UsageError` for one that has none."""
    losses, control = _losses(run), _losses(run / CONTROL)
    if not losses:
        raise UsageError(f"{run} has no evaluated checkpoint")
    if not control:
        raise UsageError(f"{run} has no control; train with --control")
    return Gains(run.name, control[0], min(control), min(losses))


def gains_table(every: Sequence[Gains]) -> str:
    """A row per run and, for several, their mean and standard deviation."""
    rows = [
        [gains.name, *(f"{loss:.4f}" for loss in (gains.before, gains.control, gains.thinking))]
        + [f"{gain:+.4f}" for gain in (gains.alone, gains.thoughts)]
        for gains in every
    ]
    if len(every) > 1:
        columns = zip(*((*gains[1:], gains.alone, gains.thoughts) for gains in every), strict=True)
        rows.append(["mean", *(f"{mean(column):.4f} ± {stdev(column):.4f}" for column in columns)])
    head = ("run", "before", "control", "with thoughts", "training alone gained", "thoughts gained")
    return markdown_table(head, rows)


def verdict(every: Sequence[Gains]) -> str:
    """In one plain sentence or two, whether thoughts gained more than the seeds' noise."""
    thoughts = [gains.thoughts for gains in every]
    gained, alone = mean(thoughts), mean(gains.alone for gains in every)
    facts = (
        f"Training alone gained {alone:.4f} nats per token, thoughts {gained:+.4f} beyond it"
        f"{f', the mean of {len(every)} runs' if len(every) > 1 else ''}."
    )
    if gained <= 0:
        return f"{facts} Thoughts do not pay here."
    if len(every) == 1:
        return f"{facts} One run does not tell how much of it is the seed's noise."
    noise = stdev(thoughts)
    if gained < noise:
        return (
            f"{facts} That is less than the noise over seeds (a standard deviation of "
            f"{noise:.4f}): these runs do not show that thoughts pay."
        )
    return f"{facts} The standard deviation over seeds is {noise:.4f}."


def _losses(run: Path) -> list[float]:
    """The evaluations of a run, in their order."""
    last = get_last_checkpoint(str(run)) if run.is_dir() else None
    if last is None:
        return []
    state = json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["eval_nll"] for entry in state["log_history"] if "eval_nll" in entry]
