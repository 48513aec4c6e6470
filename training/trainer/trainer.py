"""`transformers.Trainer` with the training step of Quiet-STaR.

Trainer keeps the loop, accumulation, precision, processes, schedule and resuming. Added are the
training step with its seeded sampling, means over all tokens of a step however they are spread over
batches and processes, the logged metrics, and checkpoints that are either complete or not there at
all.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import RandomSampler, Sampler
from torch.utils.tensorboard import SummaryWriter
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import has_length, rotate_checkpoints

from training.errors import TrainingStopped
from training.thoughts.batch import Batch, look_ahead, make_batch
from training.thoughts.losses import StepTotals
from training.thoughts.model import parameter_groups
from training.thoughts.outputs import StepOutput
from training.thoughts.sampling import seeded_draw, sequence_seeds
from training.trainer.build import WEIGHTS, Built
from training.trainer.callbacks import CollapseWatch, ThinkingProgress
from training.trainer.data import Pieces, collate
from training.trainer.metrics import METRICS, metric_means, metric_sums
from training.trainer.recipe import Recipe, rates_end
from training.trainer.schedule import scheduled_rate
from training.trainer.thought_samples import (
    THOUGHTS,
    forget_thoughts_after,
    thought_samples,
    write_thought_samples,
)

WRITING = ".writing"
_EVALUATION = "evaluation"


class QuietTrainer(Trainer):
    """Trains a model of `training.trainer.build` on data of `training.trainer.data`."""

    loss_is_scaled_for_ga = True  # for Trainer: the losses of a step's batches add up

    def __init__(
        self,
        recipe: Recipe,
        built: Built,
        pieces: Pieces,
        args: TrainingArguments,
        callbacks: Sequence[TrainerCallback] = (),
        resumed_at: int | None = None,
    ) -> None:
        """`resumed_at`: the step of the checkpoint that a run is resumed from, -1 without any; what
        was written of later steps is dropped.
        """
        self.recipe = recipe
        self.tokenizer = built.tokenizer
        self.step_model = built.model  # `model` may become its wrapper
        self.writer = _writer(recipe, resumed_at) if args.should_log else None
        self._trained = list(built.model.trainable_state())
        self._checkpoints = recipe.run.output
        self._sums_M = torch.zeros(len(METRICS), dtype=torch.float64, device=args.device)
        self._totals: StepTotals | None = None
        self._evaluated = list(pieces.evaluation)
        self._since = time.perf_counter()
        super().__init__(
            model=built.model,
            args=args,
            train_dataset=pieces.train,
            eval_dataset=pieces.evaluation,
            data_collator=partial(collate, pad_token_id=built.tokenizer.pad_token_id),
            callbacks=[*self._callbacks(), *callbacks],
        )
        if built.tuner is not None and not self.is_fsdp_enabled:
            self.step_model.merge_lora(built.tuner)
        self.remove_callback(PrinterCallback)  # ThinkingProgress shows the same

    def _callbacks(self) -> list[TrainerCallback]:
        boards = [TensorBoardCallback(self.writer)] if self.writer else []
        # Without thoughts nothing can collapse.
        watch = [CollapseWatch(self.recipe.run)] if self.recipe.thinking.budget else []
        return [*boards, ThinkingProgress(), *watch]

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """The steps between logs, evaluations and checkpoints are the recipe's, also where a run is
        resumed that began with others.
        """
        found: tuple[int, int] = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)
        return found

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of the next step; adds up what its means run over."""
        samples, number = super().get_batch_samples(epoch_iterator, num_batches, device)
        several = len(samples) > 1 or self.accelerator.num_processes > 1
        self._totals = self._step_totals(map(self._batch, samples)) if several else None
        return samples, number

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """Whole steps only: what a pass over the data consists of does not depend on how many
        sequences a device takes at once.
        """
        pieces = self.train_dataset if train_dataset is None else train_dataset
        if not has_length(pieces):
            return cast("Sampler[int] | None", super()._get_train_sampler(train_dataset))
        step = self.recipe.optimisation.sequences_per_step
        return RandomSampler(pieces, num_samples=len(pieces) // step * step)

    def _step_totals(self, batches: Iterable[Batch]) -> StepTotals:
        """Those of the batches of all processes; all must call this together."""
        own = self._totals_of(batches)
        every = (self.accelerator.gather(number[None]) for number in own)
        return StepTotals.together(map(StepTotals, *every))

    def _totals_of(self, batches: Iterable[Batch]) -> StepTotals:
        ahead = self.recipe.thinking.ahead
        return StepTotals.together(
            StepTotals.of(look_ahead(batch, ahead).real_BTS[:, :-1]) for batch in batches
        )

    def think(
        self,
        model: nn.Module,
        batch: Batch,
        step: int | str,
        totals: StepTotals | None = None,
    ) -> StepOutput:
        """One forward pass; the step seeds the sampling of thoughts."""
        thinking = self.recipe.thinking
        seeds = sequence_seeds(batch, self.recipe.run.seed, step)
        rows = batch.input_ids_BT.shape[1] * thinking.per_position
        choose = seeded_draw(seeds, rows, thinking.temperature)
        output: StepOutput = model(batch, choose, totals)
        return output

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """A batch's part of the step's loss; adds its metrics to those of the next log."""
        batch, totals = self._batch(inputs), self._totals
        output = self.think(model, batch, self.state.global_step, totals)
        self._sums_M += metric_sums(output, totals)
        # DDP and FSDP take the mean of the processes' gradients.
        loss = output.loss * self.accelerator.num_processes
        return (loss, output) if return_outputs else loss

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
        """All learning rates by `training.trainer.schedule`."""
        settings, end = self.recipe.optimisation, rates_end(self.recipe)
        factor = partial(scheduled_rate, settings=settings, end=end)
        self.lr_scheduler = LambdaLR(
            cast(torch.optim.Optimizer, optimizer or self.optimizer), factor
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(
        self,
        eval_dataset: object = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The metrics of the evaluation text, each piece of which counts once, always with the same
        seeds; writes some thoughts.
        """
        started = time.perf_counter()
        sums_M = torch.zeros_like(self._sums_M)
        model = cast(nn.Module, self.model)
        model.eval()
        batches = self._evaluation_batches()
        totals = self._totals_of(batches)
        processes, own = self.accelerator.num_processes, self.accelerator.process_index
        for first in range(0, len(batches), processes):
            # A process without a batch of its own repeats the last one, which does not count:
            # processes that share the weights must make the same forward passes.
            number = min(first + own, len(batches) - 1)
            with torch.no_grad(), self.compute_loss_context_manager():
                output = self.think(model, batches[number], _EVALUATION, totals)
            if number == first + own:
                sums_M += metric_sums(output, totals)
            if number == 0:
                self._write_thoughts(batches[number], output)
        sums_M = self.accelerator.reduce(sums_M, "sum")
        means = metric_means(sums_M)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._since += time.perf_counter() - started  # tokens/s count training time only
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics since the last log to Trainer's own training logs."""
        if "loss" in logs:
            sums_M = self.accelerator.reduce(self._sums_M, "sum")
            now = time.perf_counter()
            logs = {
                **metric_means(sums_M),
                **logs,
                "tokens_per_second": sums_M[0] / (now - self._since),
            }
            self._sums_M.zero_()
            self._since = now
        super().log({name: float(value) for name, value in logs.items()}, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained parameters; all processes must call this together."""
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
            labels=inputs.get("labels"),
            attention_mask=inputs["attention_mask"],
            document_start=inputs.get("document_start"),
        )

    def _evaluation_batches(self) -> list[Batch]:
        """All of the evaluation text, the same in every process."""
        pieces, size = self._evaluated, self.args.per_device_eval_batch_size
        starts = range(0, len(pieces), size)
        return [self._batch(self.data_collator(pieces[at : at + size])) for at in starts]

    def _write_thoughts(self, batch: Batch, output: StepOutput) -> None:
        if self.writer is None:
            return
        number = self.recipe.run.sample_thoughts
        samples = thought_samples(self.state.global_step, batch, output, self.tokenizer, number)
        write_thought_samples(samples, self.recipe.run.output / THOUGHTS, self.writer)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip, and stop before a NaN or infinite gradient reaches the weights."""
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
        """Write a checkpoint to a temporary folder, then rename it to its place."""
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


def _writer(recipe: Recipe, resumed_at: int | None) -> SummaryWriter:
    """TensorBoard's, and `thoughts.jsonl`, without what a resumed run will write again."""
    output = recipe.run.output
    if resumed_at is None:
        return SummaryWriter(str(output / "tensorboard"))
    forget_thoughts_after(output / THOUGHTS, resumed_at)
    return SummaryWriter(str(output / "tensorboard"), purge_step=resumed_at + 1)
