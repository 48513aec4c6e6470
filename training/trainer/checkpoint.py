"""Writing a trunk as a Quiet-STaR checkpoint in the official layout, and reading one back.

Names and shapes are `quietstar_infer.checkpoint`'s. The thought parts of a new checkpoint are what
the official code makes of them in the first forward pass of a training run: START and END are the
embedding of the dash, the mixing head's last layer is zero, so the model is its own trunk.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from quietstar_infer.checkpoint import (
    EMBED_TOKENS,
    END_EMBEDDING,
    LM_HEAD,
    MIXING_HEAD_PREFIX,
    START_EMBEDDING,
    check_checkpoint,
    load_tensors,
    thought_tensor_shapes,
)
from quietstar_infer.config import EMBEDDING_SCALE
from quietstar_infer.errors import CheckpointError
from quietstar_infer.mixing import MixingHead
from training.errors import UsageError
from training.demo.base_model import ROPE_THETA

THOUGHT_INIT_STD_SCALE = 1e-2
OFFICIAL_FLAGS: Mapping[str, bool] = {
    "merged_lm_and_talk_heads": False,
    "merged_lm_and_think_heads": True,
    "merged_talk_heads": True,
    "use_complex_talk_head": True,
    "use_complex_think_head": False,
    "use_concat_talk_head": True,
    "use_shallow_talk": False,
    "use_shallow_think": True,
    "use_weighted_talk_head": True,
}
"""What the published checkpoint's configuration says about its heads."""


@dataclass(frozen=True)
class ThoughtFacts:
    """The `quiet_star` section of `config.json`.

    `example_prompt` is what a server suggests for a first request.
    """

    default_thought_budget: int
    trained_on: str
    embedding_mode: str = "learned"
    embedding_scale: float = EMBEDDING_SCALE
    example_prompt: str | None = None

    def section(self) -> dict[str, Any]:
        """The section as it is written: what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def initial_thought_tensors(embed_tokens_VH: Tensor, dash: int, *, seed: int) -> dict[str, Tensor]:
    """The tensors beyond the trunk, by official name, as a training run starts with them.

    START and END (2, H): row 0 is the dash's embedding / 100; row 1, which is not used, is the log
    of the embeddings' spread (modeling_mistral.py, L1503-1537).
    """
    hidden = embed_tokens_VH.shape[1]
    spread_H = embed_tokens_VH.std(dim=0) * THOUGHT_INIT_STD_SCALE / EMBEDDING_SCALE
    meta_2H = torch.stack([embed_tokens_VH[dash] / EMBEDDING_SCALE, spread_H.log()])
    torch.manual_seed(seed)
    head = MixingHead(hidden)
    head.start_closed()
    named = {MIXING_HEAD_PREFIX + name: tensor for name, tensor in head.state_dict().items()}
    return {START_EMBEDDING: meta_2H, END_EMBEDDING: meta_2H.clone(), **named}


def config_json(model: MistralForCausalLM, facts: ThoughtFacts) -> dict[str, Any]:
    """`config.json`, in the flat form that the official code's transformers 4.37 reads too."""
    config = model.config
    passes = facts.default_thought_budget + 3
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "hidden_act": config.hidden_act,
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": ROPE_THETA,
        "sliding_window": config.sliding_window,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": config.vocab_size,
        "max_thoughts": passes + 2,  # passes + tokens talked ahead (1) + 1
        **OFFICIAL_FLAGS,
        "quiet_star": facts.section(),
    }


def generation_json(model: MistralForCausalLM) -> dict[str, Any]:
    """`generation_config.json`: where a text begins and ends."""
    config = model.config
    return {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer under the class name that old and new transformers know."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for where_from in ("is_local", "local_files_only"):
        content.pop(where_from, None)
    write_json(path, content | {"tokenizer_class": "PreTrainedTokenizerFast"})


def write_checkpoint(
    folder: Path,
    model: MistralForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    facts: ThoughtFacts,
    thought: Mapping[str, Tensor],
) -> None:
    """Write a trunk and its thought parts, which are given by official name.

    Other safetensors files in the folder are removed: vLLM would load them too. Raises
    `CheckpointError` if what was written is not a whole checkpoint.
    """
    trunk = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.safetensors"):
        stale.unlink()
    weights = folder / "model.safetensors"
    save_file({**trunk, **thought}, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it private; a server may run as somebody else
    write_json(folder / "config.json", config_json(model, facts))
    write_json(folder / "generation_config.json", generation_json(model))
    write_tokenizer(tokenizer, folder)
    check_checkpoint(folder)


def load_trunk(folder: Path) -> PreTrainedModel:
    """The trunk of a checkpoint, without its thought parts, on the CPU and ready to evaluate.

    Raises `CheckpointError` if the folder is not a whole Quiet-STaR checkpoint.
    """
    check_checkpoint(folder)
    config = AutoConfig.from_pretrained(folder)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    extra = thought_tensor_shapes(config.hidden_size)
    trunk = {name: tensor for name, tensor in load_tensors(folder).items() if name not in extra}
    if config.tie_word_embeddings:
        trunk.setdefault(LM_HEAD, trunk[EMBED_TOKENS])
    try:
        model.load_state_dict(trunk)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: the trunk does not fit config.json: {error}") from None
    model.eval()
    return model


def prepare_output(folder: Path, *, force: bool) -> None:
    """Make the output folder; raise `UsageError` if it holds files and `force` is off."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out wants a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} is not empty; add --force to write over it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}")
