"""The machine that the measurements ran on."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import cpuinfo  # type: ignore[import-untyped]
import torch

from quietstar_infer.plugin import installed_vllm_version


@dataclass(frozen=True)
class Machine:
    """`load_average` is that of the last minute, before the benchmark's own work. `preloaded` are
    the libraries that the environment puts before all others.
    """

    cpu: str
    cores: int
    memory_gib: float
    gpus: list[str]
    load_average: float
    preloaded: list[str]
    system: str
    versions: dict[str, str]
    date: str

    def lines(self) -> list[str]:
        """In words, for the head of a table."""
        load = f"load average {self.load_average:.1f}"
        return [
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {load}",
            *self.gpus,
            f"{self.system}; {', '.join(f'{name} {v}' for name, v in self.versions.items())}",
            f"preloaded: {', '.join(self.preloaded) or 'nothing'}; {self.date}",
        ]


def describe_machine() -> Machine:
    """This machine, now."""
    return Machine(
        cpu=cpuinfo.get_cpu_info().get("brand_raw", platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        gpus=[_gpu(index) for index in range(torch.cuda.device_count())],
        load_average=os.getloadavg()[0],
        preloaded=[Path(path).name for path in os.environ.get("LD_PRELOAD", "").split(":") if path],
        system=platform.platform(),
        versions={
            "Python": platform.python_version(),
            "torch": version("torch"),
            "vLLM": installed_vllm_version(),
        },
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
