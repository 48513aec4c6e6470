"""Milliseconds per pass by batch and thought budget, for a large model of random weights.

The two engines run one after the other: a GPU that holds the model once is enough.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from benchmarks.engine.engine_handle import EngineHandle, launched_engine
from benchmarks.engine.load import Load, per_token, random_requests
from benchmarks.engine.measures.pairs import GIB
from benchmarks.engine.measures.settings import MS, Progress
from benchmarks.engine.shapes import MISTRAL_7B, Shape, write_model
from benchmarks.engine.spec import EngineSpec
from benchmarks.tables import table

COPIED_BYTES = 1 << 28
COPIES = 20
# On a GPU the engine gets nearly all of the memory; on a CPU other processes need theirs.
MEMORY: dict[str, dict[str, Any]] = {
    "cuda": {"gpu_memory_utilization": 0.85},
    "cpu": {"kv_cache_memory_bytes": GIB},
}


@dataclass(frozen=True)
class GpuSettings:
    """What is measured, how often, and the lengths of answers and prompts in tokens."""

    shape: Shape = MISTRAL_7B
    batches: tuple[int, ...] = (1, 16, 64, 256)
    budgets: tuple[int, ...] = (0, 5, 16)
    repeats: int = 5
    tokens: int = 16
    prompt: int = 128
    max_thought_burst: int | None = None


@dataclass(frozen=True)
class PassTime:
    """Milliseconds per pass, median of `repeats`, and what follows from them.

    `to_stock`: relative to a decode step of stock vLLM with the same batch. `of_bandwidth`: the
    time for reading the weights once at the memory's bandwidth, as a share of the pass (batch 1
    only).
    """

    engine: str
    batch: int
    budget: int
    ms: float
    spread: tuple[float, float]
    tokens_per_second: float
    to_stock: float = 1.0
    of_bandwidth: float | None = None


def bytes_per_second(device: str, copied: int = COPIED_BYTES) -> float:
    """The memory's bandwidth, measured with copies on the device: each byte is read and written."""
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [_seconds(lambda: target.copy_(source), device) for _ in range(COPIES)]
    return 2 * copied / median(seconds)


def measure_passes(settings: GpuSettings, device: str, progress: Progress) -> Iterator[PassTime]:
    """Stock vLLM first, then the thinking engine at every budget. Raises `EngineEndedError`."""
    progress("measuring the memory's bandwidth")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    weights_ms = MS * settings.shape.pass_parameters * dtype.itemsize / bytes_per_second(device)
    if device == "cuda":
        torch.cuda.empty_cache()
    with TemporaryDirectory(prefix="quietstar-gpu-") as name:
        model = write_model(Path(name) / "model", settings.shape, dtype)
        longest = settings.prompt + 3 * settings.tokens + max(settings.budgets) + 3
        arguments = {
            "model": str(model),
            "dtype": str(dtype).removeprefix("torch."),
            "load_format": "dummy",
            "max_model_len": longest,
            "max_num_seqs": max(settings.batches),
            **MEMORY[device],
        }
        stock: dict[int, float] = {}
        for engine, budgets in (("stock", (0,)), ("thinking", settings.budgets)):
            options = {
                "max_thought_budget": max(budgets),
                "max_thought_burst": settings.max_thought_burst,
                # So that each thought token takes a pass.
                "speculative_thoughts": 0,
            }
            thinking = None if engine == "stock" else options
            progress(f"starting {engine} vLLM")
            with launched_engine(EngineSpec(arguments, thinking)) as running:
                running.wait_until_ready()
                for batch in settings.batches:
                    for budget in budgets:
                        progress(f"{engine}, batch {batch}, budget {budget}")
                        ms = _milliseconds(settings, running, batch, budget)
                        stock.setdefault(batch, median(ms))
                        yield _pass_time(engine, batch, budget, ms, stock[batch], weights_ms)


def _milliseconds(
    settings: GpuSettings, running: EngineHandle, batch: int, budget: int
) -> list[float]:
    tokens = settings.tokens if budget else 3 * settings.tokens
    vocab_size = settings.shape.vocab_size
    load = Load(
        random_requests(
            batch, length=settings.prompt, vocab_size=vocab_size, budget=budget, tokens=tokens
        )
    )
    running.run(load)  # compiles, and prefills the prompts
    return [MS * per_token(running.run(load)) / (budget + 1) for _ in range(settings.repeats)]


def _pass_time(
    engine: str, batch: int, budget: int, ms: Sequence[float], stock: float, weights_ms: float
) -> PassTime:
    middle = median(ms)
    return PassTime(
        engine,
        batch,
        budget,
        middle,
        (min(ms), max(ms)),
        tokens_per_second=MS * batch / (middle * (budget + 1)),
        to_stock=middle / stock,
        of_bandwidth=weights_ms / middle if batch == 1 else None,
    )


def _seconds(work: Callable[[], Any], device: str) -> float:
    start = perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def passes_table(times: Sequence[PassTime]) -> str:
    """A line for each engine, batch and budget."""
    header = (
        *("engine", "batch", "budget", "ms per pass", "spread", "to stock"),
        *("visible tokens/s", "of what the bandwidth allows"),
    )
    rows = [
        (
            each.engine,
            str(each.batch),
            str(each.budget),
            f"{each.ms:.2f}",
            f"{each.spread[0]:.2f} – {each.spread[1]:.2f}",
            f"{each.to_stock:.2f}",
            f"{each.tokens_per_second:.0f}",
            "" if each.of_bandwidth is None else f"{each.of_bandwidth:.0%}",
        )
        for each in times
    ]
    return table(header, rows, numbers_from=1)
