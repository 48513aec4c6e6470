"""LoRA adapters of thinkers, in peft's format: the base model's low-rank updates, and beside them
the thought parts, which are trained in full.

    adapter_config.json          peft's, with the name of the base model
    adapter_model.safetensors    peft's; any program that knows peft loads these two
    thought_parts.safetensors    START, END and the mixing head, as in a checkpoint
"""

from pathlib import Path

from peft import LoraModel, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from quietstar_infer.checkpoint import thought_tensor_shapes
from training.errors import UsageError
from training.thoughts.model import QuietThinker

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_THOUGHT_PARTS = "thought_parts.safetensors"
_NAME = "default"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a model."""
    return (folder / _CONFIG).is_file() and not (folder / "config.json").exists()


def write_adapter(tuner: LoraModel, thinker: QuietThinker, base: str, folder: Path) -> None:
    """Write a thinker's adapter and thought parts; `base`: what the adapter is for, the source of
    the base model.
    """
    folder.mkdir()
    config = tuner.peft_config[_NAME]
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    state = get_peft_model_state_dict(
        tuner, state_dict=tuner.state_dict(), adapter_name=_NAME, save_embedding_layers=False
    )
    # By the names of a whole `PeftModel`, in which the tuner is `base_model`.
    _write({f"base_model.{name}": tensor for name, tensor in state.items()}, folder / _WEIGHTS)
    names = thought_tensor_shapes(thinker.base_model.config.hidden_size)
    parts = thinker.official_tensors()
    _write({name: parts[name] for name in names}, folder / _THOUGHT_PARTS)


def base_of(folder: Path) -> str:
    """The source of the model that an adapter is for. Raises `UsageError` where it has none."""
    base: str | None = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise UsageError(f"{folder / _CONFIG} names no base model: set its base_model_name_or_path")
    return base


def merge_adapter(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base model with an adapter merged into its weights. Raises `UsageError` where it does not
    fit.
    """
    try:
        merged: PreTrainedModel = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot merge the adapter {folder} into its base model: {reason}"
        ) from None
    return merged


def thought_parts(folder: Path) -> dict[str, Tensor] | None:
    """The thought parts beside an adapter, by their names in a checkpoint; None where there are
    none, as with an adapter that others have trained.
    """
    file = folder / _THOUGHT_PARTS
    return load_file(file) if file.exists() else None


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    file.chmod(0o644)  # safetensors makes it private
