"""Engine options on a CPU, where the user sets none."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

GIB = 1 << 30
CONTEXTS = 128
"""More requests than a CPU answers in sensible time."""
# x86's names and ARM's.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def is_quantised(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's `config.json` says that its weights are quantised."""
    return bool(checkpoint.get("quantization_config") or checkpoint.get("compression_config"))


def cpu_dtype(
    checkpoint: Mapping[str, Any], cpuinfo: Path = Path("/proc/cpuinfo")
) -> Literal["auto", "float32", "bfloat16"]:
    """What the computation type `auto` means on a CPU, for a checkpoint's `config.json`.

    bfloat16 for quantised weights, whose kernels do not compute in float32. Else
    float32 for weights in float32, which vLLM would round to bf16, and on a CPU without bf16
    instructions, where bf16 is about a hundred times slower.
    """
    if is_quantised(checkpoint):
        return "bfloat16"
    if "float32" in (checkpoint.get("dtype"), checkpoint.get("torch_dtype")):
        return "float32"
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return "auto"
    return "auto" if flags & _BF16_FLAGS else "float32"


def cpu_kv_cache_bytes(bytes_per_context: int, replicas: int = 1) -> int:
    """Of each replica on the machine: the whole context of 128 requests, of so many bytes each, at
    most 4 GiB and its part of a quarter of the machine's memory: vLLM would take nearly all of it.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(CONTEXTS * bytes_per_context, total // (4 * replicas), 4 * GIB)


def context_bytes(checkpoint: Mapping[str, Any], length: int | None, bytes_per_number: int) -> int:
    """What the keys and values of one context take, of `length` tokens, or of as many as a
    checkpoint's `config.json` allows.
    """
    heads = checkpoint["num_attention_heads"]
    head_size = checkpoint.get("head_dim") or checkpoint["hidden_size"] // heads
    key_heads = checkpoint.get("num_key_value_heads") or heads
    numbers: int = 2 * checkpoint["num_hidden_layers"] * key_heads * head_size
    tokens: int = length or checkpoint["max_position_embeddings"]
    return numbers * bytes_per_number * tokens
