"""The figure of right answers against passes per token."""

import numpy as np
import pytest
from matplotlib import pyplot

from tests.support.training.adaptive import ADAPTIVE, CELLS
from training.demo.adaptive.plot import adaptive_points, passes_plot


def test_points_are_of_all_families_together() -> None:
    points = adaptive_points(ADAPTIVE, "greedy")
    assert [point.cell for point in points] == list(CELLS)
    assert [point.passes for point in points] == [1.0, 5.0, 2.0]
    assert [point.value for point in points] == pytest.approx([10, 90, 80])


def test_always_and_adaptive_are_drawn_with_what_is_shipped() -> None:
    figure, (left, right) = pyplot.subplots(1, 2)
    passes_plot({"adaptive": ADAPTIVE}, left, right)
    for axes in (left, right):
        always, adaptive, shipped = axes.lines
        assert np.array_equal(always.get_xdata(), [1.0, 5.0])
        assert np.array_equal(adaptive.get_xdata(), [2.0])
        assert np.array_equal(shipped.get_xdata(), [2.0])
        assert axes.get_xlabel() == "passes per token"
    pyplot.close(figure)
