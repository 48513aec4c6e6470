"""What is shown and watched while a run goes on."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ProgressCallback

from training.thoughts.batch import Batch
from training.errors import UsageError
from training.trainer.recipe import RunConfig
from training.thoughts.outputs import StepOutput

SHOWN = ("loss", "reward", "gain", "mixing_weight", "thought_entropy", "tokens_per_second")
CONTEXT_TOKENS = 32


class TrainingStopped(UsageError):
    """A run that cannot go on; its last good checkpoint is whole."""


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
    """Stops a run whose loss is no number or whose thoughts have collapsed.

    It reads the logged evaluations, so it survives a resume.
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


class SampleThought(NamedTuple):
    """One thought of an evaluation. `gain` is what it saved of the next token's loss, in nats."""

    step: int
    position: int
    context: str
    thought: str
    next_token: str
    mixing_weight: float
    gain: float


def sample_thoughts(
    step: int,
    batch: Batch,
    output: StepOutput,
    tokenizer: PreTrainedTokenizerBase,
    number: int,
) -> list[SampleThought]:
    """The first thoughts at positions spread evenly over the batch's text."""
    places = output.real_BTS[..., 0].nonzero().tolist()
    number = min(number, len(places))
    chosen = [places[len(places) * (2 * k + 1) // (2 * number)] for k in range(number)]
    return [
        SampleThought(
            step=step,
            position=i,
            context=_text(tokenizer, batch.input_ids_BT[b, max(0, i + 1 - CONTEXT_TOKENS) : i + 1]),
            thought=_text(tokenizer, output.thoughts.ids[b, i, 0]),
            next_token=_text(tokenizer, batch.input_ids_BT[b, i + 1]),
            mixing_weight=float(output.tokens.mixing_weight_BTPS[b, i, 0, 0]),
            gain=float(output.tokens.base_nll_BT[b, i] - output.tokens.talk_nll_BTPS[b, i, 0, 0]),
        )
        for b, i in chosen
    ]


def write_thoughts(thoughts: list[SampleThought], file: Path, writer: SummaryWriter) -> None:
    """Append thoughts to a JSONL file, and show them as a table in TensorBoard."""
    with file.open("a", encoding="utf-8") as lines:
        for thought in thoughts:
            lines.write(json.dumps(thought._asdict(), ensure_ascii=False) + "\n")
    rows = [
        f"| {t.position} | `{t.context!r}` | `{t.thought!r}` | `{t.next_token!r}` "
        f"| {t.mixing_weight:.3f} | {t.gain:+.3f} |"
        for t in thoughts
    ]
    head = "| position | context | thought | next | w | gain |\n|---|---|---|---|---|---|\n"
    writer.add_text("thoughts", head + "\n".join(rows), thoughts[0].step if thoughts else 0)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Tensor) -> str:
    return str(tokenizer.decode(ids.reshape(-1).tolist()))
