"""Engine options on a CPU where the user sets none."""

from pathlib import Path

import pytest

from server.engine.cpu_defaults import GIB, cpu_dtype, cpu_kv_cache_bytes


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


def test_vllm_decides_if_the_cpus_flags_are_unknown(tmp_path: Path) -> None:
    assert cpu_dtype({}, tmp_path / "missing") == "auto"


def test_the_kv_cache_is_bounded() -> None:
    assert 0 < cpu_kv_cache_bytes() <= 4 * GIB
