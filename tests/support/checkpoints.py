"""Small random Quiet-STaR checkpoints whose every parameter matters."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from quietstar_infer.checkpoint import (
    GATE_FILE,
    gate_tensor_shapes,
    load_tensors,
    thought_tensor_shapes,
)
from quietstar_infer.gate import GateConfig

GOLDEN = Path(__file__).parents[1] / "golden"
# Word-level: t0 … t63, <s> = 1, </s> = 2, --- = 7, then START and END.
TOKENIZER = GOLDEN / "engine_greedy_n4" / "checkpoint"
VOCAB_SIZE, NUM_PLAIN_TOKENS = 66, 64
START_ID, END_ID = 64, 65

FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    "llama": {},
    # The table serves as language-model head, too: START's and END's rows differ between the two.
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
}


def write_random_checkpoint(folder: Path, family: str, seed: int = 0, **config: Any) -> Path:
    """Write a checkpoint of the official layout, 2 layers of 64, and return its folder.

    Weights are drawn wide enough for the best token to stand out, so that two correct
    implementations agree on it in spite of their rounding.
    """
    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    model_config = AutoConfig.for_model(family, **{**shape, **FAMILIES[family], **config})
    model = AutoModelForCausalLM.from_config(model_config)
    model_config.architectures = [type(model).__name__]
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: _random(name, tensor, generator)
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and model_config.tie_word_embeddings)
    }
    for name, tensor_shape in thought_tensor_shapes(model_config.hidden_size).items():
        tensors[name] = _random(name, torch.empty(tensor_shape), generator)
    save_checkpoint(folder, json.loads(model_config.to_json_string(use_diff=False)), tensors)
    return folder


def write_random_gate(folder: Path, checkpoint: Path, seed: int = 0) -> Path:
    """Write a checkpoint with a random thought gate, and return its folder: at budgets from 2 up,
    about half of the expected gains are above 0.95 nats.
    """
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    config = json.loads((checkpoint / "config.json").read_text())
    gate = GateConfig(hidden_size=16, budgets=(2, 8))
    generator = torch.Generator().manual_seed(seed)
    shapes = gate_tensor_shapes(config["hidden_size"], gate)
    tensors = {name: _random(name, torch.empty(shapes[name]), generator) for name in shapes}
    save_file(tensors, folder / GATE_FILE)
    section = {**config.get("quiet_star", {}), "gate": {"hidden_size": 16, "budgets": [2, 8]}}
    (folder / "config.json").write_text(json.dumps({**config, "quiet_star": section}))
    return folder


def write_overflowing(folder: Path, token_id: int) -> Path:
    """Write a Llama checkpoint whose weights are finite, and that computes NaN for every text with
    this token, and for no other: the token alone has a first entry, which overflows in a layer.
    """
    source = write_random_checkpoint(folder, "llama")
    tensors = load_tensors(source)
    tensors["model.embed_tokens.weight"][:, 0] = 0
    tensors["model.embed_tokens.weight"][token_id, 0] = 1000
    for name in ("start_embedding", "end_embedding"):
        tensors[name][:, 0] = 0
    for layer in range(2):
        # Nothing else writes to that entry, and nothing but one row of one layer reads it.
        tensors[f"model.layers.{layer}.self_attn.o_proj.weight"][0] = 0
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"][0] = 0
    tensors["model.layers.0.mlp.gate_proj.weight"][0, 0] = 3e38
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    return source


def write_wide_heads(folder: Path, checkpoint: Path, factor: int) -> Path:
    """Write a checkpoint that computes the same with heads `factor` times as large, and return its
    folder: vLLM's attention on the CPU takes no small ones.

    Entry d of a head becomes entry factor · d, which rotates at the same speed; the others are 0.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    size = config["hidden_size"] // config["num_attention_heads"]
    tensors = load_tensors(checkpoint)
    for name, weight in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            wide = torch.zeros(len(weight) // size, size * factor, weight.shape[1])
            wide[:, ::factor] = weight.unflatten(0, (-1, size))
            # Scores are divided by the root of the head size.
            scale = math.sqrt(factor) if "q_proj" in name else 1.0
            tensors[name] = scale * wide.flatten(0, 1)
        elif name.endswith("o_proj.weight"):
            wide = torch.zeros(len(weight), weight.shape[1] // size, size * factor)
            wide[..., ::factor] = weight.unflatten(1, (-1, size))
            tensors[name] = wide.flatten(1)
    save_checkpoint(folder, {**config, "head_dim": size * factor}, tensors)
    return folder


def save_checkpoint(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write config, weights and the word-level tokenizer into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)


def copy_checkpoint(
    source: Path,
    folder: Path,
    *,
    chat_template: str | None = None,
    config: dict[str, Any] | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Copy a checkpoint, with some of it replaced."""
    shutil.copytree(source, folder)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _random(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise: torch.Tensor = torch.randn(like.shape, generator=generator)
    if name.endswith("_embedding"):
        return noise * 0.01  # fed a hundredfold
    if like.dim() == 1:
        return 0.1 * noise if name.endswith("bias") else 1 + 0.1 * noise
    if "embed_tokens" in name:
        return noise
    gain = (3.0 if "lm_head" in name else 1.3) / math.sqrt(like.shape[1])
    return gain * noise
