"""Models to measure: random ones of any shape, and the base models of checkpoints."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from quietstar_infer.checkpoint import (
    EMBED_TOKENS,
    load_tensors,
    thought_tensor_shapes,
)
from quietstar_infer.config import DASH, END_TOKEN, START_TOKEN, read_json


@dataclass(frozen=True)
class Shape:
    """Dimensions of a Mistral base model; `vocab_size` includes START and END."""

    name: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    vocab_size: int
    max_context: int

    @property
    def pass_parameters(self) -> int:
        """The number of weights that a pass at batch 1 reads: all but the embedding table."""
        h, head_size = self.hidden_size, self.hidden_size // self.heads
        attention = 2 * h * h + 2 * h * self.kv_heads * head_size
        layer = attention + 3 * h * self.intermediate_size + 2 * h
        return self.layers * layer + h + self.vocab_size * h


LARGER = Shape("random, 16 layers of 1024", 16, 1024, 2816, 16, 4, 32002, 4096)
MISTRAL_7B = Shape("random, Mistral-7B's shape", 32, 4096, 14336, 32, 8, 32002, 32768)
TINY = Shape("random, 2 layers of 64", 2, 64, 128, 2, 1, 66, 1024)
SHAPES = {"larger": LARGER, "mistral-7b": MISTRAL_7B, "tiny": TINY}


def write_model(folder: Path, shape: Shape, dtype: torch.dtype) -> Path:
    """Write a checkpoint in the official layout, for vLLM's `load_format="dummy"`.

    That format draws the weights when the engine starts, so only what is checked before that is
    written: the configuration, a word-level tokenizer, and, as zeros, the embedding table and the
    tensors of thinking. Stock vLLM loads the same folder as the base model.
    """
    folder.mkdir(parents=True)
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden_size // shape.heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": str(dtype).removeprefix("torch."),
    }
    tensors = {EMBED_TOKENS: torch.zeros(shape.vocab_size, shape.hidden_size, dtype=dtype)}
    for name, size in thought_tensor_shapes(shape.hidden_size).items():
        tensors[name] = torch.zeros(size, dtype=dtype)
    _save(folder, config, tensors)
    _tokenizer(shape.vocab_size).save_pretrained(folder)
    return folder


def write_base_model(folder: Path, checkpoint: Path) -> Path:
    """Write the base model of a checkpoint, which stock vLLM can load."""
    folder.mkdir(parents=True)
    config = dict(read_json(checkpoint / "config.json"))
    tensors = load_tensors(checkpoint)
    for name in thought_tensor_shapes(config["hidden_size"]):
        del tensors[name]
    _save(folder, config, tensors)
    for file in checkpoint.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def _save(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", DASH, *(f"w{i}" for i in range(4, vocab_size - 2))]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(START_TOKEN), AddedToken(END_TOKEN)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
