"""The holes in the heap of a CPU's process.

glibc (2.36) puts an aligned array only where there is room for more than the array, so a hole that
one left between two that are kept is not used again for one of its size: a training step would take
up twice the memory of what it keeps.
"""

import ctypes
import platform

import torch

_GLIBC = platform.libc_ver()[0] == "glibc"


def give_back(device: torch.device) -> None:
    """Give the system back the memory in the holes; nothing on a GPU or with another C library."""
    if device.type == "cpu" and _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
