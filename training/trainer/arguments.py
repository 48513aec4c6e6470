"""From a recipe to transformers' `TrainingArguments`."""

import torch
from transformers import TrainingArguments

from training.errors import UsageError
from training.trainer.recipe import Recipe, rates_end


def training_arguments(recipe: Recipe, *, resumed: bool) -> TrainingArguments:
    """Trainer's arguments; the accumulation follows from the number of processes.

    Raises `UsageError` where the sequences of a step cannot be divided evenly among the processes,
    and where the learning rate would reach 0 before the end.
    """
    run, settings = recipe.run, recipe.optimisation
    end = rates_end(recipe)
    if end is not None and run.steps > end:
        raise UsageError(
            f"optimisation.decay_steps is {settings.decay_steps}, so that the learning rate would "
            f"be 0 for the rest of the {run.steps} steps; set it to run.steps or more"
        )
    args = TrainingArguments(
        output_dir=str(run.output),
        max_steps=run.steps,
        per_device_train_batch_size=run.sequences_per_device,
        per_device_eval_batch_size=run.sequences_per_device,
        max_grad_norm=settings.max_grad_norm,
        bf16=run.bf16,
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=run.eval_every,
        eval_on_start=not resumed,
        save_strategy="steps",
        save_steps=run.eval_every,
        metric_for_best_model="nll",
        greater_is_better=False,
        dataloader_drop_last=True,
        # Batches differ in length, so one process cannot dispatch them to the others.
        accelerator_config={"dispatch_batches": False},
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        report_to="none",  # `training.trainer.callbacks.loggers` are given to Trainer
        run_name=str(run.output),
        disable_tqdm=True,  # ThinkingProgress shows the progress
        use_cpu=not torch.cuda.is_available(),
        seed=run.seed,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one process per GPU, never torch's DataParallel
    at_once = run.sequences_per_device * args.world_size
    if settings.sequences_per_step % at_once:
        raise UsageError(
            f"optimisation.sequences_per_step is {settings.sequences_per_step}, which is no "
            f"multiple of {run.sequences_per_device} sequences on each of {args.world_size} "
            "devices; set run.sequences_per_device"
        )
    args.gradient_accumulation_steps = settings.sequences_per_step // at_once
    return args
