"""The model that a recipe trains: from a base model or a Quiet-STaR checkpoint, with or without
LoRA.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from peft import LoraConfig, LoraModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.config import Preset
from training.errors import UsageError
from training.kernels.activation_checkpointing import checkpoint_activations, tokens_per_pass
from training.kernels.merged_lora import MergedLora
from training.thoughts.batch import Batch, check_window
from training.thoughts.loading import load_model, load_source
from training.thoughts.losses import StepTotals
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import StepOutput
from training.thoughts.sampling import ChooseThoughts
from training.thoughts.training_step import passes_for, training_step
from training.trainer.recipe import Lora, Recipe

WEIGHTS = "model.safetensors"


class ThinkingStep(nn.Module):
    """A whole training step as a forward pass, which is what DDP and FSDP can wrap."""

    accepts_loss_kwargs = False  # for Trainer: it need not count tokens for the loss

    def __init__(self, thinker: QuietThinker, preset: Preset) -> None:
        super().__init__()
        self.thinker = thinker
        self.preset = preset
        self._merged: MergedLora | None = None
        # For accelerate: FSDP shards by the base model's layers.
        self._no_split_modules = thinker.base_model._no_split_modules

    def merge_lora(self, tuner: LoraModel) -> None:
        """Compute with merged weights. Not for FSDP, whose processes have parts of the weights."""
        self._merged = MergedLora(tuner)

    def forward(
        self, batch: Batch, choose: ChooseThoughts, totals: StepTotals | None = None
    ) -> StepOutput:
        """Think at every position, and the loss: of the batch, or its part of a step's."""
        if self._merged is not None:
            self._merged.update()
        tokens = tokens_per_pass(self.thinker.base_model)
        passes = passes_for(batch, self.preset.thinking, tokens)
        most = most_of_all_processes(passes, batch.input_ids_BT.device)
        return training_step(self.thinker, batch, self.preset, choose, passes=most, totals=totals)

    def trainable_state(self) -> dict[str, Tensor]:
        """Every trained parameter by name; of tied parameters only the first."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_weights(self, folder: Path) -> None:
        """Load what `trainable_state` was saved as; raises `UsageError` if it does not fit."""
        state = load_file(folder / WEIGHTS)
        if state.keys() != self.trainable_state().keys():
            raise UsageError(f"{folder} is not a checkpoint of this recipe's model")
        self.load_state_dict(state, strict=False)


def most_of_all_processes(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers. With FSDP the processes gather a layer's weights
    together, so all must make the same number of passes, however long their texts are.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return number
    most = torch.tensor(number, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


class Built(NamedTuple):
    """The model, its tokenizer, and peft's wrapper of the base model where there is LoRA."""

    model: ThinkingStep
    tokenizer: PreTrainedTokenizerBase
    tuner: LoraModel | None


def build(recipe: Recipe) -> Built:
    """The model as a run starts with it, float32, on the CPU; a function of the recipe.

    Raises `UsageError` and `CheckpointError`.
    """
    torch.manual_seed(recipe.run.seed)
    thinker, tokenizer = load_model(
        recipe.model.source, recipe.optimisation.embedding_scale, recipe.run.seed
    )
    _prepare_tokenizer(tokenizer, recipe)
    if not recipe.settings.thinks:
        # DDP waits for the gradient of whatever is trained, and these get none.
        for part in (thinker.mixing_head.parameters(), thinker.thought_embeddings):
            for parameter in part:
                parameter.requires_grad = False
    checkpoint_activations(thinker.base_model, recipe.run.recompute)
    lora = recipe.model.lora
    tuner = add_lora(thinker.base_model, lora) if lora else None
    return Built(ThinkingStep(thinker, recipe.settings), tokenizer, tuner)


def load_tokenizer_of(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer without the model, after a check that the model has the positions that the
    recipe needs. Raises `UsageError` and `CheckpointError`.
    """
    source = load_source(recipe.model.source)
    _check_positions(source.config.get_text_config().to_dict(), recipe)
    _prepare_tokenizer(source.tokenizer, recipe)
    return source.tokenizer


def _check_positions(config: Mapping[str, Any], recipe: Recipe) -> None:
    window, budget = recipe.optimisation.window, recipe.thinking.budget
    check_window(window, recipe.thinking.ahead, config.get("sliding_window"))
    room = config.get("max_position_embeddings")
    thought = budget + 1 if budget else 0  # behind the last token: START … END, one of them ahead
    if room is not None and window + thought > room:
        raise UsageError(
            f"optimisation.window is {window} and a thought takes {thought} more positions, but "
            f"the model has {room}; set optimisation.window to {room - thought} or less"
        )


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
    tokenizer.padding_side = "right"
    if tokenizer.eos_token_id is None:
        raise UsageError(f"the tokenizer of {recipe.model.source} has no end-of-text token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def add_lora(base_model: PreTrainedModel, lora: Lora) -> LoraModel:
    """Freeze the base model and put adapters into it, in place; START, END and mixing head are
    trained in full.
    """
    targets = lora.target_modules
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    return LoraModel(base_model, config, "default")
