"""`transformers.Trainer`, taught to think.

Trainer keeps the loop, accumulation, precision, processes, schedule and resuming. Added are the
thinking step with its noise, the facts that are logged, and checkpoints that are whole or not there
at all.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import rotate_checkpoints

from training.thoughts.batch import Batch, make_batch
from training.trainer.build import WEIGHTS, Built
from training.trainer.data import Pieces
from training.errors import UsageError
from training.trainer.metrics import FACTS, means, sum_up
from training.thoughts.model import parameter_groups
from training.thoughts.sampling import seeded_draw, sequence_seeds
from training.config import Schedule
from training.trainer.recipe import Recipe
from training.thoughts.outputs import StepOutput
from training.trainer.callbacks import (
    CollapseWatch,
    ThinkingProgress,
    TrainingStopped,
    sample_thoughts,
    write_thoughts,
)

WRITING = ".writing"
EVALUATION = "evaluation"
SCHEDULES: Mapping[Schedule, str] = {"linear": "linear", "constant": "constant_with_warmup"}
"""transformers' names; each begins with the warm-up."""


class QuietTrainer(Trainer):
    """Trains what `build` built on what `load_pieces` loaded."""

    def __init__(
        self,
        recipe: Recipe,
        built: Built,
        pieces: Pieces,
        args: TrainingArguments,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.recipe = recipe
        self.tokenizer = built.tokenizer
        self.step_model = built.model  # `model` may become its wrapper
        self.writer = SummaryWriter(_tensorboard(recipe)) if args.should_log else None
        self._trained = list(built.model.trainable_state())
        self._checkpoints = recipe.run.output
        self._sums_F = torch.zeros(len(FACTS), dtype=torch.float64, device=args.device)
        self._since = time.perf_counter()
        super().__init__(
            model=built.model,
            args=args,
            train_dataset=pieces.train,
            eval_dataset=pieces.evaluation,
            data_collator=DataCollatorWithPadding(built.tokenizer),
            callbacks=[*self._callbacks(), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # ThinkingProgress shows the same

    def _callbacks(self) -> list[TrainerCallback]:
        boards = [TensorBoardCallback(self.writer)] if self.writer else []
        # Without thoughts there is nothing that could collapse.
        watch = [CollapseWatch(self.recipe.run)] if self.recipe.thinking.budget else []
        return [*boards, ThinkingProgress(), *watch]

    def think(self, model: nn.Module, batch: Batch, step: int | str) -> StepOutput:
        """One forward pass with the noise of a step."""
        thinking = self.recipe.thinking
        seeds = sequence_seeds(batch, self.recipe.run.seed, step)
        rows = batch.input_ids_BT.shape[1] * thinking.per_position
        output: StepOutput = model(batch, seeded_draw(seeds, rows, thinking.temperature))
        return output

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, and its facts for the log."""
        output = self.think(model, self._batch(inputs), self.state.global_step)
        self._sums_F += sum_up(output)
        return (output.loss, output) if return_outputs else output.loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, with the learning rates of `parameter_groups`."""
        settings = self.recipe.optimisation
        groups = parameter_groups(self.step_model.thinker, settings)
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            groups, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Trainer's, over the steps of the recipe's schedule."""
        steps = self.recipe.optimisation.decay_steps or num_training_steps
        return super().create_scheduler(steps, optimizer)

    def evaluate(
        self,
        eval_dataset: object = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The facts of the evaluation text, always with the same noise; some thoughts are kept."""
        started = time.perf_counter()
        sums_F = torch.zeros_like(self._sums_F)
        model = cast(nn.Module, self.model)
        model.eval()
        for number, inputs in enumerate(self.get_eval_dataloader()):
            batch = self._batch(inputs)
            with torch.no_grad(), self.compute_loss_context_manager():
                output = self.think(model, batch, EVALUATION)
            sums_F += sum_up(output)
            if number == 0:
                self._keep_thoughts(batch, output)
        sums_F = self.accelerator.reduce(sums_F, "sum")
        if not sums_F[0]:
            raise UsageError(
                "the evaluation text does not fill a batch of run.sequences_per_device sequences "
                "on each device; set data.eval_documents"
            )
        facts = means(sums_F)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in facts.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._since += time.perf_counter() - started  # tokens/s are those of training
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the facts since the last log to Trainer's own training logs."""
        if "loss" in logs:
            sums_F = self.accelerator.reduce(self._sums_F, "sum")
            now = time.perf_counter()
            logs = {**means(sums_F), **logs, "tokens_per_second": sums_F[0] / (now - self._since)}
            self._sums_F.zero_()
            self._since = now
        super().log({name: float(value) for name, value in logs.items()}, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained parameters; every process takes part."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        if self.args.should_save:
            folder = Path(output_dir or self.recipe.run.output)
            folder.mkdir(parents=True, exist_ok=True)
            trained = {name: state[name].contiguous() for name in self._trained}
            save_file(trained, folder / WEIGHTS)

    def _batch(self, inputs: Mapping[str, Tensor]) -> Batch:
        inputs = self._prepare_inputs(dict(inputs))
        return make_batch(
            inputs["input_ids"],
            self.tokenizer.pad_token_id,
            attention_mask=inputs["attention_mask"],
        )

    def _keep_thoughts(self, batch: Batch, output: StepOutput) -> None:
        if self.writer is None:
            return
        number = self.recipe.run.sample_thoughts
        thoughts = sample_thoughts(self.state.global_step, batch, output, self.tokenizer, number)
        write_thoughts(thoughts, self.recipe.run.output / "thoughts.jsonl", self.writer)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip, and stop before a gradient that is no number reaches the weights."""
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not torch.isfinite(torch.as_tensor(norm)):
            raise TrainingStopped(
                f"the gradient of step {self.state.global_step + 1} is {float(norm)}; the "
                f"checkpoints in {self.recipe.run.output} are whole. Try a lower learning rate"
            )
        return norm

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoints)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside the others, then move it to its place in one go."""
        run = self.recipe.run.output
        self._checkpoints = run / WRITING
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._move_checkpoint(run)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(run / WRITING, ignore_errors=True)
            raise TrainingStopped(
                f"cannot write the checkpoint of step {self.state.global_step}: {error}; "
                f"earlier checkpoints in {run} are whole"
            ) from None
        finally:
            self._checkpoints = run
        self.accelerator.wait_for_everyone()

    def _move_checkpoint(self, run: Path) -> None:
        name = f"checkpoint-{self.state.global_step}"
        best = run / f"checkpoint-{self.state.best_global_step}"
        known = best.is_dir() or best.name == name
        self.state.best_model_checkpoint = str(best) if known else None
        self.state.save_to_json(str(run / WRITING / name / "trainer_state.json"))
        shutil.rmtree(run / name, ignore_errors=True)
        (run / WRITING / name).rename(run / name)
        (run / WRITING).rmdir()
        rotate_checkpoints(str(run), self.recipe.run.keep, self.state.best_model_checkpoint)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.step_model.load_weights(Path(resume_from_checkpoint))


def training_arguments(recipe: Recipe, *, resumed: bool) -> TrainingArguments:
    """Trainer's arguments; the accumulation follows from the number of processes.

    Raises `UsageError` where the sequences of a step cannot be shared out evenly, and where the
    learning rate would be 0 before the end.
    """
    run, settings = recipe.run, recipe.optimisation
    if settings.schedule == "linear" and run.steps > (settings.decay_steps or run.steps):
        raise UsageError(
            f"optimisation.decay_steps is {settings.decay_steps}, so that the learning rate would "
            f"be 0 for the rest of the {run.steps} steps; set it to run.steps or more"
        )
    args = TrainingArguments(
        output_dir=str(run.output),
        max_steps=run.steps,
        per_device_train_batch_size=run.sequences_per_device,
        per_device_eval_batch_size=run.sequences_per_device,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
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
        # Batches differ in length, so that one process could not hand them out to the others.
        accelerator_config={"dispatch_batches": False},
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        report_to="none",
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


def _tensorboard(recipe: Recipe) -> str:
    return str(recipe.run.output / "tensorboard")
