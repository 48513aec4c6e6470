"""Base models from GGUF files, llama.cpp's format: weights, configuration and tokenizer in one.

transformers reads them, with the package `gguf`; quantized weights become float32, so that they can
be trained and saved like any others.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.import_utils import is_gguf_available

from training.errors import UsageError

SUFFIX = ".gguf"


class GgufSource(NamedTuple):
    """What a file tells without its weights."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase


def is_gguf(source: str) -> bool:
    """Whether a model's source is a GGUF file."""
    return source.endswith(SUFFIX) and Path(source).is_file()


def load_gguf_source(file: Path) -> GgufSource:
    """Configuration and tokenizer. Raises `UsageError` where the file cannot be read."""
    _check(file)
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        return GgufSource(config, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name))
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UsageError(f"cannot load the model {file}: {_first_line(error)}") from None


def load_gguf_model(file: Path) -> PreTrainedModel:
    """The model in float32 on the CPU. Raises `UsageError` where the file cannot be read."""
    _check(file)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UsageError(f"cannot load the model {file}: {_first_line(error)}") from None
    # The weights are no longer quantized; transformers (5.19) would refuse to save them.
    model.hf_quantizer, model.is_quantized = None, False  # type: ignore[assignment]
    del model.config.quantization_config
    return model


def _check(file: Path) -> None:
    if not is_gguf_available():
        raise UsageError(
            f"cannot load the model {file}: GGUF files need the package gguf (pip install gguf)"
        )
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise UsageError(f"cannot load the model {file}: it is no GGUF file")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
