"""What a run would take, before it begins: pieces, tokens, steps, time and memory.

Time and memory are estimated by counting, and then measured on one real step, whose batch has
pieces of every length, the longest included. Nothing is written.
"""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers.trainer_utils import has_length

from training.markdown import markdown_table
from training.thoughts.batch import Batch, make_batch
from training.thoughts.model import parameter_groups
from training.thoughts.sampling import seeded_draw, sequence_seeds
from training.trainer.arguments import training_arguments
from training.trainer.build import Built, ThinkingStep, build, load_tokenizer_of
from training.trainer.data import AnyDataset, collate, load_pieces
from training.trainer.recipe import Recipe

STREAMED = 256
"""Pieces that are looked at where the text is streamed."""
_PRODUCT = 1024, 1024, 1024
"""Of the matrices whose product tells a device's speed."""


class Counted(NamedTuple):
    """Pieces and tokens; `whole`: all of them, and not the first ones of a stream."""

    pieces: int
    tokens: int
    longest: int
    whole: bool


class StepSize(NamedTuple):
    """Tokens of one batch: sequences × the longest piece, and of all thoughts' paths."""

    sequences: int
    text: int
    paths: int


@dataclass(frozen=True)
class ModelSize:
    """Weights by what is done with them: those of the layers' linear parts and of the
    language-model head, all of them, and those that are trained; layers, hidden and intermediate
    size.
    """

    linear: int
    head: int
    weights: int
    trained: int
    lora: bool
    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def of(cls, model: ThinkingStep, *, lora: bool) -> "ModelSize":
        """That of a model."""
        base = model.thinker.base_model
        config = base.config.get_text_config()
        head = model.thinker.lm_head_VH
        linear = sum(
            module.weight.numel()
            for name, module in base.base_model.named_modules()
            if isinstance(module, nn.Linear) and "lora_" not in name
        )
        parameters = list(model.parameters())
        return cls(
            linear=linear,
            head=head.numel(),
            weights=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            lora=lora,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
        )


class StepCosts(NamedTuple):
    """Seconds of an optimiser step, and the peak of memory in bytes."""

    seconds: float
    memory: float


def dry_run(recipe: Recipe) -> str:
    """The report, in Markdown; raises `UsageError` for what `train` would refuse before its first
    step.
    """
    args = training_arguments(recipe, resumed=False)
    pieces = load_pieces(recipe, load_tokenizer_of(recipe))
    counted = {name: count_pieces(part) for name, part in pieces._asdict().items()}
    built = build(recipe)
    built.model.to(args.device)
    if built.tuner is not None:
        built.model.merge_lora(built.tuner)
    size = ModelSize.of(built.model, lora=built.tuner is not None)
    batch = sample_batch(recipe, built, pieces.train, args.device)
    batches = args.gradient_accumulation_steps
    estimated = estimated_cost(recipe, size, step_size(recipe, batch), batches, args.device)
    measured = measured_cost(recipe, built, batch, batches)
    return report(recipe, counted, size, {"estimated": estimated, "one real step": measured})


def count_pieces(pieces: AnyDataset) -> Counted:
    """Pieces and tokens, of a stream's first `STREAMED`."""
    whole = has_length(pieces)
    some = pieces if whole else pieces.take(STREAMED)
    lengths = [len(row["input_ids"]) for row in some]
    return Counted(len(lengths), sum(lengths), max(lengths), whole)


def sample_batch(recipe: Recipe, built: Built, train: AnyDataset, device: torch.device) -> Batch:
    """A batch of pieces of every length, the longest among them."""
    number, whole = recipe.run.sequences_per_device, has_length(train)
    rows = sorted(
        train if whole else train.take(STREAMED),
        key=lambda row: len(row["input_ids"]),
    )
    chosen = [rows[len(rows) - 1 - len(rows) * n // number] for n in range(number)]
    tensors = collate(chosen, built.tokenizer.pad_token_id)
    inputs = {name: tensor.to(device) for name, tensor in tensors.items()}
    return make_batch(
        inputs["input_ids"],
        built.tokenizer.pad_token_id,
        labels=inputs.get("labels"),
        attention_mask=inputs["attention_mask"],
        document_start=inputs.get("document_start"),
    )


def step_size(recipe: Recipe, batch: Batch) -> StepSize:
    """Tokens of a batch, padding included."""
    thinking = recipe.thinking
    text = batch.input_ids_BT.numel()
    paths = text * thinking.per_position * thinking.path_length
    return StepSize(len(batch.input_ids_BT), text, paths if recipe.settings.thinks else 0)


def estimated_cost(
    recipe: Recipe, size: ModelSize, step: StepSize, batches: int, device: torch.device
) -> StepCosts:
    """By counting: multiplications of matrices at the speed at which this device multiplies large
    ones, and what is kept of weights, optimiser and activations. Attention, norms and sampling are
    not counted.
    """
    seconds = batches * operations(recipe, size, step) / device_speed(device, recipe.run.bf16)
    return StepCosts(seconds, kept_bytes(recipe, size, step))


def operations(recipe: Recipe, size: ModelSize, step: StepSize) -> float:
    """Floating-point operations of the matrix products of one batch."""
    thinking, thinks = recipe.thinking, recipe.settings.thinks
    # Forward, gradients of inputs and, where the weights are trained, of weights.
    passes = 2 if size.lora else 3
    mlp = 3 * size.hidden * size.intermediate * size.layers / size.linear
    recomputed = {"nothing": 0.0, "mlp": mlp * 2 / 3, "layer": 1.0}[recipe.run.recompute]
    rollout = step.text * (1 + thinking.per_position * max(0, thinking.budget - 1)) if thinks else 0
    linear = (step.text + step.paths) * (passes + recomputed) + rollout
    sampled = step.text * thinking.per_position * thinking.budget if thinks else 0
    predicted = step.text * (1 + thinking.per_position * thinking.ahead if thinks else 1)
    scored = predicted + (sampled if recipe.objective.policy_weight else 0)
    return 2.0 * (size.linear * linear + size.head * (sampled + scored * passes))


def kept_bytes(recipe: Recipe, size: ModelSize, step: StepSize) -> float:
    """Weights, gradients, AdamW's moments, merged LoRA, and kept activations."""
    number = 2 if recipe.run.bf16 else 4
    weights = 4 * size.weights + 12 * size.trained + (number * size.linear if size.lora else 0)
    activations = {
        "layer": size.hidden,
        "mlp": 8 * size.hidden,
        "nothing": 12 * size.hidden + 4 * size.intermediate,
    }[recipe.run.recompute]
    return weights + float(number * activations * size.layers * (step.text + step.paths))


def device_speed(device: torch.device, bf16: bool) -> float:
    """Floating-point operations per second of a large matrix product."""
    rows, inner, columns = _PRODUCT
    dtype = torch.bfloat16 if bf16 else torch.float32
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(inner, columns, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        started = _now(device)
        left @ right
        best = min(best, _now(device) - started)
    return 2.0 * rows * inner * columns / best


def measured_cost(recipe: Recipe, built: Built, batch: Batch, batches: int) -> StepCosts:
    """Of one real step: a batch forward and backward, times the batches of a step, and the update.

    The memory is this process's peak, on a GPU that of its tensors.
    """
    device, thinking = batch.input_ids_BT.device, recipe.thinking
    model = built.model.train()
    groups = parameter_groups(model.thinker, recipe.optimisation)
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    optimizer = torch.optim.AdamW(groups, betas=recipe.optimisation.betas, fused=True)
    rows = batch.input_ids_BT.shape[1] * thinking.per_position
    choose = seeded_draw(sequence_seeds(batch, recipe.run.seed, 0), rows, thinking.temperature)
    started = _now(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.run.bf16):
        output = model(batch, choose)
    output.loss.backward()
    forward_backward = _now(device) - started
    started = _now(device)
    optimizer.step()
    return StepCosts(batches * forward_backward + _now(device) - started, _peak_bytes(device))


def report(
    recipe: Recipe, counted: Mapping[str, Counted], size: ModelSize, costs: Mapping[str, StepCosts]
) -> str:
    """Everything in Markdown."""
    text = markdown_table(
        ["text", "pieces", "tokens", "longest"],
        [
            [name, _number(part), str(part.tokens), str(part.longest)]
            for name, part in counted.items()
        ],
    )
    steps, sequences = recipe.run.steps, recipe.optimisation.sequences_per_step
    train = counted["train"]
    passes = (
        f"A pass over the text takes {train.pieces // sequences} steps of {sequences} sequences; "
        f"{steps} steps are {steps * sequences / train.pieces:.2g} passes."
        if train.whole
        else f"The text is streamed; {steps} steps take {steps * sequences} pieces."
    )
    table = markdown_table(
        ["", "seconds per step", f"{steps} steps, hours", "peak memory, GB"],
        [
            [name, *(f"{number:.3g}" for number in _shown(cost, steps))]
            for name, cost in costs.items()
        ],
    )
    weights = f"{size.trained / 1e6:.2f} of {size.weights / 1e6:.1f} million weights are trained."
    return "\n\n".join([text, passes, weights, table, _note(costs)])


def _number(part: Counted) -> str:
    return str(part.pieces) if part.whole else f"the first {part.pieces}"


def _shown(cost: StepCosts, steps: int) -> tuple[float, float, float]:
    """Seconds per step, hours of all steps, GB."""
    return cost.seconds, cost.seconds * steps / 3600, cost.memory / 1e9


def _note(costs: Mapping[str, StepCosts]) -> str:
    times = costs["one real step"].seconds / costs["estimated"].seconds
    return (
        f"The real step took {times:.1f} times the estimate, which counts matrix products only, at "
        "the speed of large ones. Evaluations (before the first step and every "
        "run.eval_every steps) come on top."
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
