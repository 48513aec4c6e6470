"""The gradient of one step, from however many processes run this: by Trainer with DDP, and of a
model that FSDP has sharded.

    torchrun --nproc-per-node 2 -m tests.support.training.gradients FOLDER OUT
"""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tests.support.training.runs import small_recipe
from training.config import PRESETS
from training.kernels import activation_checkpointing
from training.thoughts.batch import make_batch
from training.thoughts.sampling import seeded_draw, sequence_seeds
from training.trainer.arguments import training_arguments
from training.trainer.build import ThinkingStep, build
from training.trainer.data import load_pieces
from training.trainer.recipe import Recipe
from training.trainer.trainer import QuietTrainer

SEQUENCES, WINDOW = 4, 16


class Share(NamedTuple):
    """The part of a batch that one process has: some rows, up to some position."""

    rows: slice
    positions: int = WINDOW


UNEVEN = [Share(slice(0, 2)), Share(slice(2, 4), positions=6)]
"""Of two processes; the second has fewer positions than the first has passes."""
EVALUATED = [(5, 2), (4, 1), (1, 2)]
"""Evaluation texts, and how many a process takes at once."""


@contextmanager
def many_passes() -> Iterator[None]:
    """The base model runs over the paths of one position of two sequences per pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(activation_checkpointing.PASS_ACTIVATIONS, "cpu", 0)
        patch.setattr(activation_checkpointing, "FEWEST_TOKENS", 1)
        yield


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters' gradients by name; whole where they are sharded."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {
        name: (grad.full_tensor() if isinstance(grad, DTensor) else grad).clone()
        for name, grad in gradients.items()
        if grad is not None
    }


class GradientTap(TrainerCallback):
    """Keeps the gradients of the first step."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.gradients = gradients_of(kwargs["model"])
        control.should_training_stop = True


def first_gradients(recipe: Recipe) -> dict[str, Tensor]:
    """All parameters' gradients in the first step of a run."""
    built = build(recipe)
    trainer = QuietTrainer(
        recipe,
        built,
        load_pieces(recipe, built.tokenizer),
        training_arguments(recipe, resumed=True),  # without an evaluation first
    )
    tap = GradientTap()
    trainer.add_callback(tap)
    trainer.train()
    return tap.gradients


def step_gradients(model: ThinkingStep, share: Share) -> dict[str, Tensor]:
    """The gradients of one step on a part of a batch."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(8, 60, (SEQUENCES, WINDOW), generator=generator)
    batch = make_batch(ids_BT[share.rows, : share.positions], pad_token_id=2)
    rows_per_sequence = share.positions * model.preset.thinking.per_position
    choose = seeded_draw(sequence_seeds(batch, 0, 0), rows_per_sequence)
    model(batch, choose).loss.backward()
    return gradients_of(model)


def recipe_without_clipping(
    folder: Path, sequences_per_device: int, preset: str = "recommended"
) -> Recipe:
    """Four sequences per step, of different lengths."""
    texts = folder / "uneven.jsonl"
    if not texts.exists():
        texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in _uneven_texts()))
    return small_recipe(
        folder,
        preset=preset,
        data={"path": str(texts), "pieces": "window", "eval_documents": 4},
        optimisation={"sequences_per_step": SEQUENCES, "max_grad_norm": 1e9},
        run={
            "sequences_per_device": sequences_per_device,
            "output": str(folder / f"gradients-{preset}-{sequences_per_device}"),
        },
    )


def evaluation(folder: Path, documents: int, sequences_per_device: int) -> dict[str, float]:
    """The metrics of some evaluation texts, by a model before its first step."""
    recipe = recipe_without_clipping(folder, sequences_per_device)
    recipe = replace(recipe, data=replace(recipe.data, eval_documents=documents))
    built = build(recipe)
    pieces = load_pieces(recipe, built.tokenizer)
    return QuietTrainer(recipe, built, pieces, training_arguments(recipe, resumed=True)).evaluate()


def _uneven_texts() -> Iterator[str]:
    rng = random.Random(0)
    for number in range(24):
        words = (4, 15, 7, 5)[number % 4]
        yield " ".join(f"t{rng.randrange(8, 60)}" for _ in range(words))


def main(folder: str, out: str) -> None:
    by_ddp = {
        f"ddp-{preset}-{at_once}": first_gradients(
            recipe_without_clipping(Path(folder), at_once, preset)
        )
        for preset in PRESETS
        for at_once in (1, 2)
    }
    evaluations = {
        f"evaluation-{documents}": {
            name: torch.tensor(value)
            for name, value in evaluation(Path(folder), documents, at_once).items()
        }
        for documents, at_once in EVALUATED
    }
    recipe = recipe_without_clipping(Path(folder), SEQUENCES // 2)

    rank = torch.distributed.get_rank()
    model = build(recipe).model
    for layer in model.thinker.base_model.base_model.get_submodule("layers").children():
        fully_shard(layer)
    fully_shard(model)
    share = SEQUENCES // torch.distributed.get_world_size()
    by_fsdp = step_gradients(model, Share(slice(rank * share, (rank + 1) * share)))
    with many_passes():
        uneven = step_gradients(model, UNEVEN[rank])

    if rank == 0:
        if all(isinstance(parameter, DTensor) for parameter in model.parameters()):
            print("sharded by FSDP")
        named = {**evaluations, **by_ddp, "fsdp": by_fsdp, "uneven": uneven}
        save_file({f"{way}.{n}": g for way, all_ in named.items() for n, g in all_.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
