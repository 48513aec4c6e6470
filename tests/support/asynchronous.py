"""Asynchronous scheduling on the CPU, where vLLM always switches it off.

vLLM's own code runs: the scheduler a step ahead of the results, two batches in flight, sampled
tokens known to the device only. The CUDA streams and events by which it waits for a copy are no-ops
on the CPU, where a copy is done when the call returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vllm.config import VllmConfig
from vllm.platforms.cpu import CpuPlatform


@contextmanager
def asynchronous_cpu() -> Iterator[None]:
    """Engines started within schedule asynchronously, as they do on CUDA by default."""
    decide = CpuPlatform.check_and_update_config

    def decide_and_restore(vllm_config: VllmConfig) -> None:
        decide(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", staticmethod(decide_and_restore))
        yield
