"""Return freed memory to the operating system (glibc's `malloc_trim`), on a CPU.

glibc (2.36) puts an aligned array only where there is room for more than the array. So the gap that
a freed array leaves between two others is not reused for an array of its size, and a training step
would take up twice the memory of what it keeps.
"""

import ctypes
import platform

import torch

_GLIBC = platform.libc_ver()[0] == "glibc"


def return_freed_memory(device: torch.device) -> None:
    """Return freed memory to the operating system; does nothing on a GPU or without glibc."""
    if device.type == "cpu" and _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
