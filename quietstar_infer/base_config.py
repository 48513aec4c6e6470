"""What a base model's part of config.json must say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from quietstar_infer.errors import CheckpointError
from quietstar_infer.params import is_finite_from_zero

# Sizes that every decoder of the Llama family has, and those that it may leave to the others.
_NEEDED = (
    *("hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"),
    *("num_hidden_layers", "num_attention_heads"),
)
_OPTIONAL = ("num_key_value_heads", "head_dim")


def check_base_config(config: Mapping[str, Any], folder: Path) -> None:
    """Raise `CheckpointError`, naming the field of a folder's config.json that no model can be made
    of.
    """
    if not isinstance(model_type := config.get("model_type"), str):
        raise CheckpointError(
            f"{folder}/config.json: model_type is {model_type!r}, expected a name"
        )
    for name in _NEEDED:
        _check_size(config.get(name), name, folder)
    for name in _OPTIONAL:
        if config.get(name) is not None:
            _check_size(config[name], name, folder)
    heads = config["num_attention_heads"]
    if not config.get("head_dim"):
        _check_divides(heads, "num_attention_heads", config["hidden_size"], "hidden_size", folder)
    if key_heads := config.get("num_key_value_heads"):
        _check_divides(key_heads, "num_key_value_heads", heads, "num_attention_heads", folder)
    _check_rope(_loaded(folder), folder)


def _check_size(value: Any, name: str, folder: Path) -> None:
    if type(value) is not int or value < 1:
        raise CheckpointError(
            f"{folder}/config.json: {name} is {value!r}, expected a whole number from 1 up"
        )


def _check_divides(part: int, part_name: str, whole: int, whole_name: str, folder: Path) -> None:
    if whole % part:
        raise CheckpointError(
            f"{folder}/config.json: {whole_name} is {whole}, which is no multiple of {part_name}, "
            f"{part}"
        )


def _loaded(folder: Path) -> PretrainedConfig:
    """The configuration as transformers takes it: each field has a type, some have rules of their
    own.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    # A KeyError, an AttributeError, errors of huggingface_hub's own, …
    except Exception as error:
        raise CheckpointError(f"{folder}/config.json cannot be used: {_reason(error)}") from None
    return config


def _check_rope(config: PretrainedConfig, folder: Path) -> None:
    """What transformers only warns of."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind, known = rope.get("rope_type", "default"), ["default", *ROPE_INIT_FUNCTIONS]
    if kind not in known:
        raise CheckpointError(
            f"{folder}/config.json: rope_type is {kind!r}, expected one of {', '.join(known)}"
        )
    for name in ("rope_theta", "factor"):
        value = rope.get(name)
        if value is not None and not (is_finite_from_zero(value) and value > 0):
            raise CheckpointError(
                f"{folder}/config.json: {name} is {value!r}, expected a finite number above 0"
            )


def _reason(error: BaseException) -> str:
    """The first cause in one line; types where messages are written for programmers."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"
