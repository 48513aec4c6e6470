"""Two engines that are measured in turn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.engine.engine_handle import EngineHandle, launched_engine
from benchmarks.engine.load import Load, Request, random_requests
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.settings import MeasureName, Progress, Settings
from benchmarks.engine.shapes import write_base_model, write_model
from benchmarks.engine.spec import EngineSpec
from quietstar_infer.config import read_json
from server.engine.cpu_defaults import cpu_dtype

GIB = 1 << 30


@dataclass(frozen=True)
class Pair:
    """A model on both engines, and the loads that suit its size."""

    name: str
    vocab_size: int
    ours: EngineHandle
    stock: EngineHandle
    repeats: int
    tokens: int
    limit: float
    progress: Progress = field(repr=False)

    def requests(
        self, number: int, budget: int, tokens: int, length: int = 16
    ) -> tuple[Request, ...]:
        return random_requests(
            number, length=length, vocab_size=self.vocab_size, budget=budget, tokens=tokens
        )

    def repetitions(self, what: str, at_most: int | None = None) -> Iterator[None]:
        repeats = min(self.repeats, at_most or self.repeats)
        for number in range(1, repeats + 1):
            self.progress(f"{self.name}: {what}, {number} of {repeats}")
            yield

    def measured(
        self,
        name: MeasureName,
        case: str,
        names: tuple[str, str],
        values: tuple[Sequence[float], Sequence[float]],
        limit: float,
        unit: str = "ms",
        at_least: bool = False,
    ) -> Measured:
        """A line: the ratios of `values`, the numerators and the denominators of the
        repetitions.
        """
        above, below = values
        return Measured(
            name=name,
            model=self.name,
            case=case,
            names=names,
            unit=unit,
            numerator=median(above),
            denominator=median(below),
            ratios=[a / b for a, b in zip(above, below, strict=True)],
            limit=limit,
            at_least=at_least,
        )


def engine_arguments(folder: Path, device: str, **arguments: Any) -> dict[str, Any]:
    """The server's engine arguments, its computation type on a CPU among them, but with a KV cache
    that leaves memory for a second engine.
    """
    checkpoint = read_json(folder / "config.json")
    return {
        "model": str(folder),
        "dtype": "bfloat16" if device == "cuda" else cpu_dtype(checkpoint),
        "kv_cache_memory_bytes": GIB,
        # vLLM wants this share of the memory to be free, although the cache's size is given.
        "gpu_memory_utilization": 0.4,
        **arguments,
    }


@contextmanager
def pair(spec: EngineSpec, stock_spec: EngineSpec, **rest: Any) -> Iterator[Pair]:
    """Both engines, started at the same time."""
    rest["progress"](f"{rest['name']}: starting two engines")
    with launched_engine(spec) as ours, launched_engine(stock_spec) as stock:
        ours.wait_until_ready()
        stock.wait_until_ready()
        started = Pair(ours=ours, stock=stock, **rest)
        for engine in (ours, stock):
            engine.run(Load(started.requests(4, 0, 4)))
        yield started
        ours.begin_to_end()  # at the same time as the other one


@contextmanager
def checkpoint_pair(
    settings: Settings, folder: Path, device: str, progress: Progress
) -> Iterator[Pair]:
    arguments = engine_arguments(settings.checkpoint, device)
    base_model = write_base_model(folder / "base-model", settings.checkpoint)
    stock = EngineSpec(engine_arguments(base_model, device))
    ours = EngineSpec(arguments, settings.thinking)
    with _pair_of(settings, ours, stock, 0.8, progress) as both:
        yield both


@contextmanager
def speculative_pair(settings: Settings, device: str, progress: Progress) -> Iterator[Pair]:
    """Two engines that think: one drafts thought tokens where it pays, the other never."""
    drafting, plain = _drafting_and_not(settings, engine_arguments(settings.checkpoint, device))
    with _pair_of(settings, drafting, plain, 1.0, progress) as both:
        yield both


def _drafting_and_not(
    settings: Settings, arguments: dict[str, Any]
) -> tuple[EngineSpec, EngineSpec]:
    if torch.cuda.is_available():
        arguments = arguments | {"async_scheduling": False}
    drafting = settings.thinking | {"speculative_thoughts": "auto"}
    return EngineSpec(arguments, drafting), EngineSpec(arguments, settings.thinking)


@contextmanager
def _pair_of(
    settings: Settings, ours: EngineSpec, other: EngineSpec, limit: float, progress: Progress
) -> Iterator[Pair]:
    """Two engines with the checkpoint, or its base model."""
    with pair(
        ours,
        other,
        name=settings.checkpoint.name,
        vocab_size=read_json(settings.checkpoint / "config.json")["vocab_size"],
        repeats=settings.repeats,
        tokens=settings.tokens,
        limit=limit,
        progress=progress,
    ) as both:
        yield both


@contextmanager
def larger_pair(
    settings: Settings, folder: Path, device: str, progress: Progress
) -> Iterator[Pair]:
    """The larger model, and stock vLLM with its base model."""
    arguments = _larger_arguments(settings, folder, device)
    specs = EngineSpec(arguments, settings.thinking), EngineSpec(arguments)
    with _larger_pair_of(settings, *specs, progress) as both:
        yield both


@contextmanager
def larger_speculative_pair(
    settings: Settings, folder: Path, device: str, progress: Progress
) -> Iterator[Pair]:
    """As `speculative_pair`, with the larger model."""
    specs = _drafting_and_not(settings, _larger_arguments(settings, folder, device))
    with _larger_pair_of(settings, *specs, progress) as both:
        yield both


def _larger_arguments(settings: Settings, folder: Path, device: str) -> dict[str, Any]:
    shape, model = settings.larger, folder / "larger"
    if not model.exists():
        write_model(model, shape, torch.bfloat16 if device == "cuda" else torch.float32)
    longest = max(settings.contexts) + (settings.budget + 3) * settings.larger_tokens + 64
    return engine_arguments(
        model, device, load_format="dummy", max_model_len=min(shape.max_context, longest)
    )


@contextmanager
def _larger_pair_of(
    settings: Settings, ours: EngineSpec, other: EngineSpec, progress: Progress
) -> Iterator[Pair]:
    shape = settings.larger
    with pair(
        ours,
        other,
        name=shape.name,
        vocab_size=shape.vocab_size,
        repeats=settings.larger_repeats,
        tokens=settings.larger_tokens,
        limit=1.0,
        progress=progress,
    ) as both:
        yield both
