"""One measurement of a training step, on a shape small enough for a test."""

from typing import get_args

import pytest

from benchmarks.training.measurement import StepTask, StepVersion, measure_step
from benchmarks.training.step_cost import STEP_VERSIONS


def test_every_version_is_compared() -> None:
    assert get_args(StepVersion) == STEP_VERSIONS


@pytest.mark.parametrize("version", STEP_VERSIONS)
def test_every_version_can_be_measured(version: StepVersion) -> None:
    found = measure_step(StepTask(version, vocab_size=40, positions=12, repeats=1))
    assert found.cpu_seconds > 0
    assert found.peak_mib >= 0
