"""A cell over time."""

import pytest

from loadtest.analysis.timeline import timeline
from tests.support.loadtest.records import made_cell, made_record


def test_the_timeline_counts_what_was_in_flight() -> None:
    # Ten seconds, one request in each, that takes half of it.
    records = [made_record(n, n, first=0.0, per_token=0.05) for n in range(10)]
    course = timeline(made_cell(records, (0.0, 10.0)), bins=10)
    assert course.in_flight == pytest.approx([0.5] * 10)
    assert course.due == pytest.approx([1.0] * 10)
    assert course.completed == pytest.approx([1.0] * 10)
    assert course.failed.sum() == 0
