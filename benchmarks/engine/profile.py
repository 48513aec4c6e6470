"""Where the time of an engine step goes, for a plain decode step and a thought pass.

The parts are timed in an engine without processes of its own (`inside`). What a pass takes in the
processes of a server is measured beside it; the difference is what the processes cost.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.engine.load import Load, random_requests, per_token
from benchmarks.engine.measures import MS, Report, engine_arguments
from benchmarks.engine.report import table
from benchmarks.engine.shapes import LARGER, Shape, write_model, write_base_model
from benchmarks.engine.engine_handle import EngineHandle, side
from benchmarks.engine.spec import EngineSpec
from benchmarks.engine.timers import OUTPUTS, PARTS, Breakdown
from quietstar_infer.config import read_json

INSIDE = "benchmarks.engine.timed_engine"


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
    """Milliseconds per pass: `parts` of an engine in one process, and `served`, all of a pass in
    the processes of a server.
    """

    model: str
    engine: str
    batch: int
    parts: dict[str, float]
    served: float

    @property
    def processes(self) -> float:
        """What the processes cost: a server's pass less that of one process without its front end,
        which is no part of a server's pass.
        """
        return self.served - sum(ms for part, ms in self.parts.items() if part != OUTPUTS)


@dataclass(frozen=True)
class Model:
    """A model, what vLLM is given to load it and its trunk, and how much it is to say."""

    name: str
    thinker: dict[str, Any]
    trunk: dict[str, Any]
    vocab_size: int
    tokens: int


def profile(settings: ProfileSettings, device: str, report: Report) -> Iterator[Profile]:
    """A breakdown for each model, engine and batch. Raises `CheckpointError` and `EngineEndedError`."""
    with TemporaryDirectory(prefix="quietstar-profile-") as name:
        for model in models(settings, Path(name), device):
            for engine, budget in (("stock", 0), ("thinking", settings.budget)):
                yield from profile_engine(settings, model, engine, budget, report)


def models(settings: ProfileSettings, folder: Path, device: str) -> Iterator[Model]:
    """The checkpoint and the larger model; what stock vLLM needs of them is put into a folder."""
    checkpoint, shape = settings.checkpoint, settings.larger
    yield Model(
        checkpoint.name,
        engine_arguments(checkpoint, device),
        engine_arguments(write_base_model(folder / "trunk", checkpoint), device),
        read_json(checkpoint / "config.json")["vocab_size"],
        settings.tokens,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    arguments = engine_arguments(
        write_model(folder / "larger", shape, dtype), device, load_format="dummy"
    )
    yield Model(shape.name, arguments, arguments, shape.vocab_size, settings.larger_tokens)


def profile_engine(
    settings: ProfileSettings, model: Model, engine: str, budget: int, report: Report
) -> Iterator[Profile]:
    """A breakdown for each batch, of thoughts of `budget` tokens or, where that is 0, of stock."""
    report(f"{model.name}: starting {engine} vLLM twice")
    options = {"max_thought_budget": budget, "max_thought_burst": settings.max_thought_burst}
    thinking = options if budget else None
    arguments = model.thinker if budget else model.trunk
    inside = EngineSpec(arguments, thinking, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    with ExitStack() as stack:
        timed = stack.enter_context(side(inside, INSIDE))
        served = stack.enter_context(side(EngineSpec(arguments, thinking)))
        timed.start()
        served.start()
        for batch in settings.batches:
            report(f"{model.name}: {engine}, batch {batch}")
            yield _profile_batch(settings, model, engine, budget, batch, (timed, served))


def _profile_batch(
    settings: ProfileSettings,
    model: Model,
    engine: str,
    budget: int,
    batch: int,
    sides: tuple[EngineHandle, EngineHandle],
) -> Profile:
    timed, served = sides
    tokens = model.tokens if budget else 3 * model.tokens
    load = Load(random_requests(batch, length=16, vocab_size=model.vocab_size, budget=budget, tokens=tokens))
    passes = (tokens - 1) * (budget + 1)
    breakdowns: list[Breakdown] = []
    server_ms = []
    for _ in range(settings.repeats):
        breakdowns.append(timed.ask(load))
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
