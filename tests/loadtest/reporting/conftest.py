"""A run for all tests of reports and files."""

import pytest

from loadtest.records import Run
from tests.support.loadtest.records import made_run, mixed, sweep


@pytest.fixture(scope="session")
def run() -> Run:
    """A sweep of budgets and a mix, with a service level."""
    cells = [*sweep(loads=("closed:4",), repeats=2), mixed()]
    return made_run(cells, levels=["p95 time_per_visible_token<=50ms"])
