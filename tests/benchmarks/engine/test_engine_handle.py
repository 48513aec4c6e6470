"""Processes with an engine: halted while they are not measured, and clear about why they ended."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from benchmarks.engine.engine_handle import EngineEndedError, launched_engine
from benchmarks.engine.load import Load
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.shapes import TINY, write_model
from benchmarks.engine.spec import EngineSpec

pytestmark = pytest.mark.slow


def test_a_halted_engine_uses_no_cpu(both: Pair) -> None:
    """Nor does its front end or any process that it has started."""
    both.stock.run(Load(both.requests(1, 0, 2)))
    for engine in (both.ours, both.stock):
        states = [state for group, state in processes() if group == engine._process.pid]
        assert len(states) > 2
        assert set(states) == {"T"}


def processes() -> Iterator[tuple[int, str]]:
    """Process group and state of every process."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, _, group, *_ = file.read_text().rpartition(")")[2].split()
            yield int(group), state


def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", TINY, torch.float32)
    arguments = {"model": str(model), "decode_context_parallel_size": 2}
    spec = EngineSpec(arguments, {"max_thought_budget": 2})
    with (
        launched_engine(spec) as broken,
        pytest.raises(EngineEndedError, match=r"UnsupportedError: .* parallelism"),
    ):
        broken.wait_until_ready()
