"""Engine options on a CPU where the user sets none."""

from pathlib import Path

import pytest

from quietstar_infer.config import read_json
from server.engine.cpu_defaults import GIB, context_bytes, cpu_dtype, cpu_kv_cache_bytes
from tests.support.servers import DEMO


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("flags : fpu sse avx2 avx512f", "float32"),
        ("flags : fpu avx512f avx512_bf16", "auto"),
        ("flags : fpu amx_bf16", "auto"),
        ("Features : fp asimd bf16", "auto"),
        ("Features : fp asimd", "float32"),
    ],
)
def test_a_cpu_without_bf16_computes_in_float32(tmp_path: Path, flags: str, dtype: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\n{flags}\n")
    assert cpu_dtype({"torch_dtype": "bfloat16"}, cpuinfo) == dtype
    assert cpu_dtype({}, cpuinfo) == dtype
    # Weights in float32 are never rounded.
    assert cpu_dtype({"torch_dtype": "float32"}, cpuinfo) == "float32"
    assert cpu_dtype({"dtype": "float32"}, cpuinfo) == "float32"


def test_quantised_weights_are_computed_with_in_16_bits(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu sse avx2")
    checkpoint = {"dtype": "float32", "quantization_config": {"quant_method": "gptq"}}
    assert cpu_dtype(checkpoint, cpuinfo) == "bfloat16"


def test_vllm_decides_if_the_cpus_flags_are_unknown(tmp_path: Path) -> None:
    assert cpu_dtype({}, tmp_path / "missing") == "auto"


def test_the_kv_cache_is_no_larger_than_the_model_needs() -> None:
    demo = read_json(DEMO / "config.json")
    context = context_bytes(demo, None, 4)
    assert context == 4 * 1024 * 4 * 2 * 128  # layers, positions, bytes, keys and values, hidden
    assert context_bytes(demo, 100, 2) == context * 100 / 1024 / 2
    assert cpu_kv_cache_bytes(context) == 128 * context == GIB // 2
    assert cpu_kv_cache_bytes(context, replicas=2) == GIB // 2


def test_the_kv_cache_is_bounded_by_the_machine() -> None:
    mistral = {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "max_position_embeddings": 32768,
    }
    assert context_bytes(mistral, None, 2) == 4 * GIB
    assert context_bytes({**mistral, "head_dim": 64}, None, 2) == 2 * GIB
    assert 0 < cpu_kv_cache_bytes(4 * GIB) <= 4 * GIB
    assert 0 < cpu_kv_cache_bytes(4 * GIB, replicas=1000) <= cpu_kv_cache_bytes(4 * GIB) / 200
