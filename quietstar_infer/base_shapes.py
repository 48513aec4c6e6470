"""The shapes of a base model's tensors, as its config.json describes them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_LAYER = re.compile(r"model\.layers\.\d+\.(.+)")


def base_tensor_shapes(names: list[str], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each of a checkpoint's tensors that its config.json says something about.

    For the decoders of the Llama family; nothing of quantised checkpoints, whose tensors are
    packed. vLLM reads only the beginning of some tensors that are too large.
    """
    if config.get("quantization_config") or not isinstance(config.get("num_attention_heads"), int):
        return {}
    in_layers = _layer_shapes(config)
    found = ((name, _LAYER.fullmatch(name)) for name in names)
    shapes = {name: in_layers[it[1]] for name, it in found if it and it[1] in in_layers}
    if "model.norm.weight" in names:
        shapes["model.norm.weight"] = (config["hidden_size"],)
    return shapes


def missing_base_tensors(names: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """Those that the layers of the same decoders need and a checkpoint lacks.

    vLLM joins some into one (q, k and v; gate and up), and takes that for loaded when one of them
    is.
    """
    layers = config.get("num_hidden_layers")
    if config.get("quantization_config") or not isinstance(layers, int):
        return []
    if not isinstance(config.get("num_attention_heads"), int):
        return []
    needed = [
        name
        for name in _layer_shapes(config)
        if name.endswith(".weight") and "q_norm" not in name and "k_norm" not in name
    ]
    found = set(names)
    wanted = [f"model.layers.{layer}.{name}" for layer in range(layers) for name in needed]
    return [name for name in [*wanted, "model.norm.weight"] if name not in found]


def _layer_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """By name within a layer."""
    h, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or h // heads
    q, kv = heads * head, (config.get("num_key_value_heads") or heads) * head
    projections = {
        "self_attn.q_proj": (q, h),
        "self_attn.k_proj": (kv, h),
        "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, q),
    }
    if size := config.get("intermediate_size"):
        projections |= {
            "mlp.gate_proj": (size, h),
            "mlp.up_proj": (size, h),
            "mlp.down_proj": (h, size),
        }
    return {
        **{f"{name}.weight": shape for name, shape in projections.items()},
        **{f"{name}.bias": shape[:1] for name, shape in projections.items()},
        "self_attn.q_norm.weight": (head,),
        "self_attn.k_norm.weight": (head,),
        "input_layernorm.weight": (h,),
        "post_attention_layernorm.weight": (h,),
    }
