"""Small GGUF files, as llama.cpp's converter writes them."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

LETTERS = list(bytes_to_unicode().values())
TOKENS = [*LETTERS, "Ġt", "he", "Ġthe", "--", "---", "<|end|>"]
END = len(TOKENS) - 1
KEY_VALUE_HEADS, ROPE_BASE = 2, 5000.0
MERGES = ["Ġ t", "h e", "Ġt he", "- -", "-- -"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    "model.layers": "blk",
}


def small_llama() -> LlamaForCausalLM:
    """A random model of two layers for the tokenizer of `write_gguf`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        bos_token_id=END,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config)
    model.eval()
    return model


def write_gguf(model: LlamaForCausalLM, file: Path) -> Path:
    """A model with a byte-level tokenizer and a chat template; matrices are quantized to Q8_0."""
    config, writer = model.config, GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 1) + [3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(END)
    writer.add_eos_token_id(END)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    for name, tensor in model.state_dict().items():
        _add_tensor(writer, name, tensor, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tensor(writer: GGUFWriter, name: str, tensor: Tensor, config: LlamaConfig) -> None:
    heads = {"q_proj": config.num_attention_heads, "k_proj": KEY_VALUE_HEADS}
    for part, number in heads.items():
        if part in name:  # llama.cpp rotates neighbouring entries, transformers halves
            halves = tensor.unflatten(0, (number, 2, -1))
            tensor = halves.swapaxes(1, 2).flatten(0, 2)
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    values = tensor.numpy()
    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
    else:
        packed = quants.quantize(values, GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
