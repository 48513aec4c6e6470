"""A training run, from recipe to export."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from training.errors import UsageError
from training.gate.command import GateJob, run_gate
from training.trainer.arguments import training_arguments
from training.trainer.build import ThinkingStep, build, load_tokenizer_of
from training.trainer.callbacks import loggers
from training.trainer.control import control_of
from training.trainer.data import load_pieces
from training.trainer.export import RECIPE, export_run
from training.trainer.recipe import (
    Recipe,
    first_difference,
    load_recipe,
    rates_end,
    save_recipe,
)
from training.trainer.trainer import WRITING, QuietTrainer


def train(
    recipe: Recipe, *, resume: bool = False, callbacks: Sequence[TrainerCallback] = ()
) -> Path:
    """Train, keep the best checkpoint, train the control, export, fit the gate; returns the
    exported folder.

    Mistakes that can be detected beforehand are reported before the first step, those in recipe and
    data before the model is loaded. Raises `UsageError`, `CheckpointError`, and `TrainingStopped`
    for a run that cannot go on.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    _train_once(recipe, processes, callbacks, resume=resume)
    if recipe.control:
        control = control_of(recipe)
        begun = resume and (control.run.output / RECIPE).exists()
        _train_once(control, processes, (), resume=begun)
        if processes.is_main_process:
            export_run(control.run.output)
    if processes.is_main_process:
        fit_run_gate(recipe, export_run(recipe.run.output))
    processes.wait_for_everyone()
    return recipe.run.output / "model"


def _train_once(
    recipe: Recipe,
    processes: PartialState,
    callbacks: Sequence[TrainerCallback],
    *,
    resume: bool,
) -> None:
    """One run, from its checks to its last checkpoint."""
    output = recipe.run.output
    checkpoint = check_output(recipe, resume=resume)
    args = training_arguments(recipe, resumed=checkpoint is not None)
    callbacks = [*loggers(recipe.run.report_to), *callbacks]
    tokenizer = load_tokenizer_of(recipe)
    with processes.main_process_first():
        pieces = load_pieces(recipe, tokenizer)
    built = build(recipe)
    check_space(built.model, recipe)
    if processes.is_main_process:
        shutil.rmtree(output / WRITING, ignore_errors=True)
        save_recipe(recipe, output / RECIPE)
    resumed_at = (step_of(checkpoint) if checkpoint else -1) if resume else None
    trainer = QuietTrainer(recipe, built, pieces, args, callbacks, resumed_at)
    if checkpoint is None or step_of(checkpoint) < recipe.run.steps:
        trainer.train(resume_from_checkpoint=checkpoint)


def fit_run_gate(recipe: Recipe, folder: Path) -> None:
    """Fit the thought gate that a recipe asks for to its exported model, on the run's data; the
    report is in the folder `gate` of the run's output.
    """
    if recipe.gate is not None:
        run_gate(GateJob(folder, recipe.data, recipe.gate, recipe.run.output / "gate"))


def check_output(recipe: Recipe, *, resume: bool) -> str | None:
    """The checkpoint to resume from, if any.

    Raises `UsageError` for a folder that cannot be written, that holds something already, or, with
    `resume`, that does not hold a run of this recipe; one that has no checkpoint may be of any.
    """
    output = recipe.run.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output) as probe:
            probe.write(b"x")
    except OSError as error:
        raise UsageError(f"cannot write to {output}: {error.strerror}") from None
    if not resume:
        if any(output.iterdir()):
            raise UsageError(
                f"{output} is not empty; add --resume to go on with the run in it, or choose "
                "another run.output"
            )
        return None
    former = load_recipe(output / RECIPE)
    checkpoint: str | None = get_last_checkpoint(str(output))
    if checkpoint is None:  # nothing that another recipe could not begin anew
        return None
    difference = first_difference(former, recipe)
    if difference:
        raise UsageError(
            f"{output} holds a run of another recipe: {difference} differs; choose "
            "another run.output"
        )
    _check_schedule(former, recipe)
    if step_of(checkpoint) > recipe.run.steps:
        raise UsageError(
            f"the run in {output} has gone to step {step_of(checkpoint)} already, beyond run.steps "
            f"of {recipe.run.steps}; `python -m training export` exports its best checkpoint"
        )
    return checkpoint


def step_of(checkpoint: str) -> int:
    """The step of a checkpoint's folder."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def _check_schedule(former: Recipe, recipe: Recipe) -> None:
    """Raise `UsageError` where the learning rates would not go on as they began."""
    end, output = rates_end(former), recipe.run.output
    if end == rates_end(recipe):
        return
    if end is None or recipe.run.steps <= end:
        raise UsageError(
            f"{output} holds a run with another schedule: optimisation.decay_steps (or run.steps, "
            f"where it is not given) differs; set optimisation.decay_steps to {end}"
        )
    raise UsageError(
        f"in the run in {output} the learning rate falls to 0 at step {end}, so that it cannot go "
        f"on to step {recipe.run.steps}; start a new run with model.source={output}/model"
    )


def check_space(model: ThinkingStep, recipe: Recipe) -> None:
    """Raise `UsageError` where the checkpoints would not fit on the disk."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.numel() for p in model.parameters())
    # Parameters and AdamW's two moments, in float32; a checkpoint is written before one is deleted.
    needed = 4 * (3 * trained * (recipe.run.keep + 2) + weights)
    free = shutil.disk_usage(recipe.run.output).free
    if free < needed:
        raise UsageError(
            f"the checkpoints in {recipe.run.output} would take {needed / 1e9:.1f} GB, but only "
            f"{free / 1e9:.1f} GB are free"
        )
