"""Two engines for all benchmarks: starting them takes most of the time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.engine.measures.pairs import Pair, engine_arguments, pair
from benchmarks.engine.shapes import write_base_model
from benchmarks.engine.spec import EngineSpec
from tests.support.benchmarking import ignore
from tests.support.checkpoints import VOCAB_SIZE, write_random_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("benchmark"), "mistral")


@pytest.fixture(scope="session")
def both(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two real engines for all tests here: starting them takes most of the time."""
    base_model = write_base_model(tmp_path_factory.mktemp("base") / "model", checkpoint)
    thinking, stock = (
        engine_arguments(
            folder, "cpu", kv_cache_memory_bytes=64 << 20, enforce_eager=True, max_num_seqs=16
        )
        for folder in (checkpoint, base_model)
    )
    with pair(
        EngineSpec(thinking, {"max_thought_budget": 4}),
        EngineSpec(stock),
        name="tiny",
        vocab_size=VOCAB_SIZE,
        repeats=1,
        tokens=3,
        limit=0.8,
        progress=ignore,
    ) as started:
        yield started
