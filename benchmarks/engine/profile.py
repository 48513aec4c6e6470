"""Where the time of an engine step goes, for a decode step and a thought pass.

The parts are timed in an engine that runs in a single process (`timed_engine`). What a pass takes
in the processes of a server is measured, too; the difference is what the processes cost.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.engine.engine_handle import EngineHandle, launched_engine
from benchmarks.engine.load import Load, per_token, random_requests
from benchmarks.engine.measures.pairs import engine_arguments
from benchmarks.engine.measures.settings import MS, Progress
from benchmarks.engine.shapes import LARGER, Shape, write_base_model, write_model
from benchmarks.engine.spec import EngineSpec
from benchmarks.engine.timers import OUTPUTS, PARTS, Breakdown
from benchmarks.tables import table
from quietstar_infer.config import read_json

TIMED_ENGINE = "benchmarks.engine.timed_engine"
"""The module of a process with an engine whose parts are timed."""


@dataclass(frozen=True)
class ProfileSettings:
    """What is profiled, and how often each load runs."""

    checkpoint: Path
    larger: Shape = LARGER
    batches: tuple[int, ...] = (1, 16)
    budget: int = 8
    repeats: int = 5
    tokens: int = 16
    larger_tokens: int = 4
    max_thought_burst: int | None = None


@dataclass(frozen=True)
class Profile:
    """Milliseconds per pass: `parts` of an engine in one process, and `served`, a whole pass in the
    processes of a server.
    """

    model: str
    engine: str
    batch: int
    parts: dict[str, float]
    served: float

    @property
    def processes(self) -> float:
        """What the processes cost: a server's pass less that of one process without output
        processing, which a server does while the next pass runs.
        """
        return self.served - sum(ms for part, ms in self.parts.items() if part != OUTPUTS)


@dataclass(frozen=True)
class ProfiledModel:
    """A model: engine arguments with thoughts and for stock vLLM, and tokens per request."""

    name: str
    thinking: dict[str, Any]
    stock: dict[str, Any]
    vocab_size: int
    tokens: int


def profile(settings: ProfileSettings, device: str, progress: Progress) -> Iterator[Profile]:
    """A breakdown for each model, engine and batch.

    Raises `CheckpointError` for a model that is no Quiet-STaR checkpoint, and `EngineEndedError`.
    """
    with TemporaryDirectory(prefix="quietstar-profile-") as name:
        for model in models(settings, Path(name), device):
            for engine, budget in (("stock", 0), ("thinking", settings.budget)):
                yield from profile_engine(settings, model, engine, budget, progress)


def models(settings: ProfileSettings, folder: Path, device: str) -> Iterator[ProfiledModel]:
    """The checkpoint and the larger model; files that stock vLLM needs are written to `folder`."""
    checkpoint, shape = settings.checkpoint, settings.larger
    yield ProfiledModel(
        checkpoint.name,
        engine_arguments(checkpoint, device),
        engine_arguments(write_base_model(folder / "base-model", checkpoint), device),
        read_json(checkpoint / "config.json")["vocab_size"],
        settings.tokens,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    arguments = engine_arguments(
        write_model(folder / "larger", shape, dtype), device, load_format="dummy"
    )
    yield ProfiledModel(shape.name, arguments, arguments, shape.vocab_size, settings.larger_tokens)


def profile_engine(
    settings: ProfileSettings, model: ProfiledModel, engine: str, budget: int, progress: Progress
) -> Iterator[Profile]:
    """A breakdown for each batch: of thoughts of `budget` tokens, or of stock vLLM at budget 0."""
    progress(f"{model.name}: starting {engine} vLLM twice")
    options = {
        "max_thought_budget": budget,
        "max_thought_burst": settings.max_thought_burst,
        # So that each thought token takes a pass.
        "speculative_thoughts": 0,
    }
    thinking = options if budget else None
    arguments = model.thinking if budget else model.stock
    timed_spec = EngineSpec(arguments, thinking, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    with ExitStack() as stack:
        timed = stack.enter_context(launched_engine(timed_spec, TIMED_ENGINE))
        served = stack.enter_context(launched_engine(EngineSpec(arguments, thinking)))
        timed.wait_until_ready()
        served.wait_until_ready()
        for batch in settings.batches:
            progress(f"{model.name}: {engine}, batch {batch}")
            yield _profile_batch(settings, model, engine, budget, batch, (timed, served))


def _profile_batch(
    settings: ProfileSettings,
    model: ProfiledModel,
    engine: str,
    budget: int,
    batch: int,
    engines: tuple[EngineHandle, EngineHandle],
) -> Profile:
    timed, served = engines
    tokens = model.tokens if budget else 3 * model.tokens
    load = Load(
        random_requests(batch, length=16, vocab_size=model.vocab_size, budget=budget, tokens=tokens)
    )
    passes = (tokens - 1) * (budget + 1)
    breakdowns: list[Breakdown] = []
    server_ms = []
    for _ in range(settings.repeats):
        breakdowns.append(timed.call(load))
        server_ms.append(MS * per_token(served.run(load)) / (budget + 1))
    parts = {
        part: MS * median(each.seconds.get(part, 0.0) for each in breakdowns) / passes
        for part in PARTS
    }
    return Profile(model.name, engine, batch, parts, median(server_ms))


def profile_table(profiles: list[Profile]) -> str:
    """A column for each profile."""
    header = ["ms per pass", *(f"{p.model}, {p.engine}, batch {p.batch}" for p in profiles)]
    rows = [[part, *(_ms(p.parts[part]) for p in profiles)] for part in PARTS]
    rows.append(["one process, in all", *(_ms(sum(p.parts.values())) for p in profiles)])
    rows.append(["processes of a server", *(_ms(p.processes) for p in profiles)])
    rows.append(["a server's pass", *(_ms(p.served) for p in profiles)])
    return table(header, rows, numbers_from=1)


def _ms(value: float) -> str:
    return f"{value:.2f}"
