"""The lines of the table, one by one."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.engine.measures.adaptive import adaptive_cost
from benchmarks.engine.measures.drafts import speculative_cost, speculative_gain
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.mixed import arrival_cost, mixed_batch_cost
from benchmarks.engine.measures.pairs import (
    checkpoint_pair,
    larger_pair,
    larger_speculative_pair,
    speculative_pair,
)
from benchmarks.engine.measures.passes import context_cost, official_gain, pass_cost
from benchmarks.engine.measures.settings import Progress, Settings


def measure(settings: Settings, device: str, progress: Progress) -> Iterator[Measured]:
    """The lines of `settings.only`, one by one.

    Raises `CheckpointError` for a model that is no Quiet-STaR checkpoint, and `EngineEndedError`.
    """
    only = set(settings.only)
    with TemporaryDirectory(prefix="quietstar-benchmark-") as name:
        folder = Path(name)
        if only & {"pass", "official", "company", "arrival", "adaptive"}:
            with checkpoint_pair(settings, folder, device, progress) as both:
                if "pass" in only:
                    yield from pass_cost(both, settings)
                if "company" in only:
                    yield mixed_batch_cost(both, settings)
                if "arrival" in only:
                    yield arrival_cost(both, settings)
                if "adaptive" in only:
                    yield from adaptive_cost(both, settings)
                if "official" in only:
                    yield official_gain(both, settings, device)
        if "speculative" in only:
            with speculative_pair(settings, device, progress) as both:
                yield from speculative_gain(both, settings)
            with larger_speculative_pair(settings, folder, device, progress) as both:
                yield from speculative_cost(both, settings)
        if only & {"pass", "context"}:
            with larger_pair(settings, folder, device, progress) as both:
                if "pass" in only:
                    yield from pass_cost(both, settings)
                if "context" in only:
                    yield context_cost(both, settings)
