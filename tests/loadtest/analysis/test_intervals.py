"""Intervals, against published values and closed forms."""

import math

import pytest

from loadtest.analysis.intervals import Repeated, difference, student_t, wilson


def test_wilson_against_published_values() -> None:
    # Newcombe (1998), table I, method 3.
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = wilson(hits, count)
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)
    nothing = wilson(0, 20)
    assert nothing.low == 0
    assert nothing.high == pytest.approx(0.1611, abs=5e-5)


def test_students_t_against_its_closed_forms() -> None:
    assert student_t(1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-5)
    alpha = 0.95
    assert student_t(2) == pytest.approx(alpha * math.sqrt(2 / (1 - alpha**2)), rel=1e-4)
    assert student_t(1.9) == student_t(1)


def test_intervals_of_repeats_and_of_their_difference() -> None:
    repeated = Repeated((1.0, 2.0, 3.0))
    assert repeated.mean == 2
    assert repeated.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-6)
    assert Repeated((1.0,)).half_width is None
    bounds = difference((1.0, 2.0, 3.0), (11.0, 12.0, 13.0))
    # Equal variances: four degrees of freedom.
    assert bounds.low == pytest.approx(10 - 2.7764 * math.sqrt(2 / 3), rel=1e-6)
    assert difference((1.0, 1.0), (3.0, 3.0)).low == 2
