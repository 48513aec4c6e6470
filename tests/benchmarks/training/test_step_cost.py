"""The cost of training steps."""

import math

import pytest

from benchmarks.training.step_cost import measure_cost

pytestmark = pytest.mark.slow


def test_a_measurement_runs_in_a_process_of_its_own() -> None:
    cost = measure_cost("fast", 40, 12, budget=1, repeats=1)
    assert math.isfinite(cost.cpu_seconds)
