"""The model that a recipe trains: from a plain trunk or a Quiet-STaR checkpoint, with or without
LoRA."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, LoraModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from quietstar_infer.checkpoint import START_EMBEDDING
from quietstar_infer.config import EMBEDDING_SCALE, load_tokenizer
from training.thoughts.batch import Batch
from training.errors import UsageError
from training.thoughts.training_step import fast_step, passes_for
from training.thoughts.model import QuietThinker
from training.config import Preset
from training.trainer.recipe import Lora, Recipe
from training.kernels.activation_checkpointing import recompute, tokens_per_pass
from training.thoughts.sampling import ChooseThoughts
from training.thoughts.outputs import StepOutput

WEIGHTS = "model.safetensors"


class ThinkingStep(nn.Module):
    """A whole training step as a forward pass, which is what DDP and FSDP can wrap."""

    accepts_loss_kwargs = False  # for Trainer: the loss is a mean over the batch

    def __init__(self, thinker: QuietThinker, preset: Preset) -> None:
        super().__init__()
        self.thinker = thinker
        self.preset = preset
        # For accelerate: FSDP shards by the trunk's layers.
        self._no_split_modules = thinker.trunk._no_split_modules

    def forward(self, batch: Batch, choose: ChooseThoughts) -> StepOutput:
        """Think at every position, and the loss."""
        tokens = tokens_per_pass(self.thinker.trunk)
        passes = passes_for(batch, self.preset.thinking, tokens)
        most = most_of_all_processes(passes, batch.input_ids_BT.device)
        return fast_step(self.thinker, batch, self.preset, choose, passes=most)

    def trainable_state(self) -> dict[str, Tensor]:
        """Every trained parameter by name; one that is tied to another is left out."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_weights(self, folder: Path) -> None:
        """Load what `trainable_state` was saved as; raises `UsageError` if it does not fit."""
        state = load_file(folder / WEIGHTS)
        if state.keys() != self.trainable_state().keys():
            raise UsageError(f"{folder} is not a checkpoint of this recipe's model")
        self.load_state_dict(state, strict=False)


def most_of_all_processes(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers. With FSDP they gather a layer's weights together, and
    so must read equally often, however long their texts are.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return number
    most = torch.tensor(number, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


class Built(NamedTuple):
    """The model, its tokenizer, and peft's handle on the trunk where there is LoRA."""

    model: ThinkingStep
    tokenizer: PreTrainedTokenizerBase
    tuner: LoraModel | None


def build(recipe: Recipe) -> Built:
    """The model as a run starts with it, float32, on the CPU. The same recipe builds the same one.

    Raises `UsageError` and `CheckpointError`.
    """
    torch.manual_seed(recipe.run.seed)
    thinker, tokenizer = load_thinker(recipe)
    tokenizer.padding_side = "right"
    if tokenizer.eos_token_id is None:
        raise UsageError(f"the tokenizer of {recipe.model.source} has no end-of-text token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    recompute(thinker.trunk, recipe.run.recompute)
    lora = recipe.model.lora
    tuner = add_lora(thinker.trunk, lora) if lora else None
    return Built(ThinkingStep(thinker, recipe.settings), tokenizer, tuner)


def load_thinker(recipe: Recipe) -> tuple[QuietThinker, PreTrainedTokenizerBase]:
    """Trunk, thought parts and tokenizer; raises `UsageError` and `CheckpointError`."""
    return load_model(recipe.model.source, recipe.optimisation.embedding_scale, recipe.run.seed)


def load_model(
    source: str, embedding_scale: float = EMBEDDING_SCALE, seed: int = 0
) -> tuple[QuietThinker, PreTrainedTokenizerBase]:
    """A folder's or the hub's model, in float32 on the CPU: trunk, thought parts (of a plain trunk,
    new ones by `seed`) and tokenizer; raises `UsageError` and `CheckpointError`.
    """
    folder = local_folder(source)
    if has_thought_parts(folder):
        return QuietThinker.from_checkpoint(folder, embedding_scale), load_tokenizer(folder)
    with _explained(source):
        trunk: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return QuietThinker.from_trunk(trunk, tokenizer, embedding_scale, seed=seed), tokenizer


def add_lora(trunk: PreTrainedModel, lora: Lora) -> LoraModel:
    """Freeze the trunk and put adapters into it, in place; START, END and mixing head stay as they
    are."""
    targets = lora.target_modules
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    return LoraModel(trunk, config, "default")


def local_folder(source: str) -> Path:
    """A model's folder, which is fetched if it is a name on the hub; raises `UsageError`."""
    if Path(source).is_dir():
        return Path(source)
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    # The same weights again, under the names of their first publishers.
    other = ["consolidated*", "original/*"]
    with _explained(source):
        return Path(snapshot_download(source, allow_patterns=wanted, ignore_patterns=other))


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"cannot load the model {source}: {reason}") from None


def has_thought_parts(folder: Path) -> bool:
    """Whether a folder holds a Quiet-STaR checkpoint, and not a plain trunk."""
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if START_EMBEDDING in file.keys():  # noqa: SIM118 - not a mapping
                return True
    return False
