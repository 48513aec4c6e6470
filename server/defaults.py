"""What suits a CPU where the user asks for nothing in particular."""

import os
from pathlib import Path
from typing import Literal

GIB = 1 << 30
# x86's names and ARM's.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def cpu_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> Literal["auto", "float32"]:
    """float32 on a CPU without bf16 instructions, where vLLM's choice, bf16, is about a hundred
    times slower."""
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return "auto"
    return "auto" if flags & _BF16_FLAGS else "float32"


def cpu_kv_cache_bytes() -> int:
    """A quarter of the machine's memory, at most 4 GiB: vLLM would take nearly all of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total // 4, 4 * GIB)
