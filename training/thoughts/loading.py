"""Loads a Quiet-STaR checkpoint, a base model or an adapter of either, with its tokenizer, from a
folder, a GGUF file or the hub.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from quietstar_infer.checkpoint import START_EMBEDDING
from quietstar_infer.config import EMBEDDING_SCALE, load_tokenizer
from training.errors import UsageError
from training.hub import is_hub_name
from training.thoughts.adapter import base_of, is_adapter, merge_adapter, thought_parts
from training.thoughts.gguf_file import is_gguf, load_gguf_model, load_gguf_source
from training.thoughts.model import QuietThinker, first_dash_token


def load_model(
    source: str, embedding_scale: float = EMBEDDING_SCALE, seed: int = 0
) -> tuple[QuietThinker, PreTrainedTokenizerBase]:
    """A model in float32 on the CPU, and its tokenizer; a plain base model gets new thought parts
    by `seed`. Raises `UsageError` and `CheckpointError`.
    """
    if is_gguf(source):
        base = load_gguf_model(Path(source))
        tokenizer = load_gguf_source(Path(source)).tokenizer
        thinker = QuietThinker.from_base_model(base, tokenizer, embedding_scale, seed=seed)
        return thinker, tokenizer
    folder = local_folder(source)
    if is_adapter(folder):
        thinker, tokenizer = load_model(base_of(folder), embedding_scale, seed)
        thinker.trunk = merge_adapter(thinker.base_model, folder)
        thinker.load_thought_parts(thought_parts(folder) or {})
        return thinker, tokenizer
    if has_thought_parts(folder):
        return QuietThinker.from_checkpoint(folder, embedding_scale), load_tokenizer(folder)
    with _explained(source):
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return QuietThinker.from_base_model(base, tokenizer, embedding_scale, seed=seed), tokenizer


class Source(NamedTuple):
    """What is known of a model without its weights."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase


def load_source(source: str) -> Source:
    """Configuration and tokenizer of a model. Raises `UsageError`, also for a base model whose
    tokenizer cannot write what new thought parts begin as, and `CheckpointError`.
    """
    if is_gguf(source):
        found = load_gguf_source(Path(source))
        first_dash_token(found.tokenizer)
        return Source(*found)
    folder = local_folder(source)
    if is_adapter(folder):
        return load_source(base_of(folder))
    with _explained(source):
        config = AutoConfig.from_pretrained(folder)
        if has_thought_parts(folder):
            return Source(config, load_tokenizer(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    first_dash_token(tokenizer)
    return Source(config, tokenizer)


def local_folder(source: str) -> Path:
    """A model's folder; a name on the hub is downloaded first. Raises `UsageError`."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_file():
        raise UsageError(
            f"cannot load the model {source}: it is a file, expected a folder or .gguf"
        )
    if not is_hub_name(source):
        raise UsageError(f"cannot load the model {source}: there is no such folder")
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    # The same weights again, under the names of their first publishers.
    other = ["consolidated*", "original/*"]
    with _explained(source, "there is no such folder, and on the hub: "):
        return Path(snapshot_download(source, allow_patterns=wanted, ignore_patterns=other))


def has_thought_parts(folder: Path) -> bool:
    """Whether a folder holds a Quiet-STaR checkpoint, and not a plain base model. Raises
    `UsageError` for an adapter, which is neither.
    """
    if is_adapter(folder):
        raise UsageError(
            f"{folder} is an adapter, from which `train` can start (model.source); take the model "
            "beside it, into which it is merged"
        )
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if START_EMBEDDING in file.keys():  # noqa: SIM118 - not a mapping
                return True
    return False


@contextmanager
def _explained(source: str, before: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"cannot load the model {source}: {before}{reason}") from None
