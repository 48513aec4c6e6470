"""Where the time of a step goes, on a small engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.engine import profile as profile_module
from benchmarks.engine.engine_handle import EngineHandle, launched_engine
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.profile import Profile, ProfileSettings, profile_table
from benchmarks.engine.shapes import TINY
from benchmarks.engine.spec import EngineSpec
from benchmarks.engine.timers import BASE_MODEL, PARTS, STOCK, THINKING
from tests.support.benchmarking import ignore

pytestmark = pytest.mark.slow


def test_every_part_of_a_step_is_timed(
    both: Pair, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the thinking engine alone: what is timed in stock vLLM is timed in it, too."""
    started: list[EngineSpec] = []

    @contextmanager
    def instead(spec: EngineSpec, module: str = "") -> Iterator[EngineHandle]:
        started.append(spec)
        if not module:
            monkeypatch.setattr(both.ours, "wait_until_ready", lambda: None)
            yield both.ours
            return
        arguments = spec.arguments | {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}
        with launched_engine(replace(spec, arguments=arguments), module) as timed:
            yield timed

    monkeypatch.setattr("benchmarks.engine.profile.launched_engine", instead)
    asked = ProfileSettings(checkpoint, TINY, batches=(2,), budget=2, repeats=1, tokens=3)
    model = next(iter(profile_module.models(asked, checkpoint.parent, "cpu")))
    (profiled,) = profile_module.profile_engine(asked, model, "thinking", 2, ignore)
    assert set(STOCK.items()) <= set(THINKING.items())
    assert all(ms > 0 for ms in profiled.parts.values())
    assert [spec.environment.get("VLLM_ENABLE_V1_MULTIPROCESSING") for spec in started] == [
        "0",
        None,
    ]


def test_output_processing_is_no_part_of_the_cost_of_processes() -> None:
    parts = dict.fromkeys(PARTS, 0.0) | {BASE_MODEL: 2.0, "output processing": 1.0}
    made = Profile("m", "stock", 1, parts, served=5.0)
    assert made.processes == 3.0
    assert "| a server's pass             |              5.00 |" in profile_table([made])
