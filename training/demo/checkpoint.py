"""Writes the demonstration's base model as a Quiet-STaR checkpoint in the official layout.

Its thought parts are new: START and END are the embedding of the dash, and the mixing head's last
layer is zero, so that the model predicts what its base model predicts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import MistralForCausalLM, PreTrainedTokenizerBase

from quietstar_infer.checkpoint import check_checkpoint
from training.demo.base_model import ROPE_THETA
from training.output import write_json
from training.trainer.checkpoint import OFFICIAL_FLAGS, ThoughtFacts, write_tokenizer


def write_checkpoint(
    folder: Path,
    model: MistralForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    facts: ThoughtFacts,
    thought: Mapping[str, Tensor],
) -> None:
    """Write a base model and its thought parts, which are given by official name.

    Other safetensors files in the folder are removed: vLLM would load them too. Raises
    `CheckpointError` if what was written is not a complete checkpoint.
    """
    base = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.safetensors"):
        stale.unlink()
    weights = folder / "model.safetensors"
    save_file({**base, **thought}, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it private; a server may run as another user
    write_json(folder / "config.json", mistral_config_json(model, facts))
    write_json(folder / "generation_config.json", generation_json(model))
    write_tokenizer(tokenizer, folder)
    check_checkpoint(folder)


def mistral_config_json(model: MistralForCausalLM, facts: ThoughtFacts) -> dict[str, Any]:
    """`config.json`, in the flat form that the official code's transformers 4.37 reads too."""
    config = model.config
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
        "max_thoughts": facts.max_thoughts,
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
