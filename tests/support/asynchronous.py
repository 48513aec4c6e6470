"""Asynchronous scheduling on the CPU, where vLLM always switches it off.

A stand-in for a CUDA device, as small as it can be: vLLM's own code runs (the scheduler a step
ahead of the results, two batches in flight, sampled tokens known to the device only), but the
CUDA streams and events by which it waits for a copy are replaced by nothing, for on the CPU a
copy is done when the call returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from vllm.config import VllmConfig
from vllm.platforms.cpu import CpuPlatform


class _Nothing:
    """A stream, or an event, of a device that does everything at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, *args: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass


@contextmanager
def asynchronous_cpu() -> Iterator[None]:
    """Engines started within schedule asynchronously, as they do on CUDA by default."""
    decide = CpuPlatform.check_and_update_config

    def decide_and_restore(vllm_config: VllmConfig) -> None:
        decide(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", staticmethod(decide_and_restore))
        patch.setattr(torch.cuda, "Event", _Nothing)
        patch.setattr(torch.cuda, "Stream", _Nothing)
        patch.setattr(torch.cuda, "current_stream", _Nothing)
        patch.setattr(torch.cuda, "stream", nullcontext)
        yield
