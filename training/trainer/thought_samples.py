"""Some thoughts of every evaluation, written to `thoughts.jsonl` and to TensorBoard."""

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedTokenizerBase

from training.thoughts.batch import Batch
from training.thoughts.outputs import StepOutput

CONTEXT_TOKENS = 32
THOUGHTS = "thoughts.jsonl"


class ThoughtSample(NamedTuple):
    """One thought of an evaluation. `gain`: how much it lowered the next token's loss, in nats."""

    step: int
    position: int
    context: str
    thought: str
    next_token: str
    mixing_weight: float
    gain: float


def thought_samples(
    step: int,
    batch: Batch,
    output: StepOutput,
    tokenizer: PreTrainedTokenizerBase,
    number: int,
) -> list[ThoughtSample]:
    """The first thoughts at positions spread evenly over the batch's text."""
    places = output.real_BTS[..., 0].nonzero().tolist()
    number = min(number, len(places))
    chosen = [places[len(places) * (2 * k + 1) // (2 * number)] for k in range(number)]
    return [
        ThoughtSample(
            step=step,
            position=i,
            context=_text(tokenizer, batch.input_ids_BT[b, _context_start(batch, b, i) : i + 1]),
            thought=_text(tokenizer, output.thoughts.ids[b, i, 0]),
            next_token=_text(tokenizer, batch.input_ids_BT[b, i + 1]),
            mixing_weight=float(output.tokens.mixing_weight_BTPS[b, i, 0, 0]),
            gain=float(output.tokens.base_nll_BT[b, i] - output.tokens.talk_nll_BTPS[b, i, 0, 0]),
        )
        for b, i in chosen
    ]


def _context_start(batch: Batch, sequence: int, position: int) -> int:
    """Of the context that is shown: it does not reach into another document."""
    start_BT = batch.document_start_BT
    start = 0 if start_BT is None else int(start_BT[sequence, position])
    return max(start, position + 1 - CONTEXT_TOKENS)


def write_thought_samples(thoughts: list[ThoughtSample], file: Path, writer: SummaryWriter) -> None:
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


def forget_thoughts_after(file: Path, step: int) -> None:
    """Drop the thoughts of later steps, whose checkpoint was never written: they are sampled again.
    A line that was cut short goes as well.
    """
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    part = file.with_suffix(".part")
    part.write_text("".join(x for x in whole if json.loads(x)["step"] <= step), encoding="utf-8")
    part.replace(file)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Tensor) -> str:
    return str(tokenizer.decode(ids.reshape(-1).tolist()))
