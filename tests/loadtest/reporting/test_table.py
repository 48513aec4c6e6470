"""Figures as text."""

import pytest

from loadtest.analysis.intervals import Repeated
from loadtest.reporting.table import with_spread


@pytest.mark.parametrize(
    ("values", "missing", "figure", "text"),
    [
        ((0.1,), 0, "mean end_to_end", "100 ms"),
        ((0.100, 0.101, 0.102), 0, "mean end_to_end", "101 ms ± 2 %"),
        ((0.1, 0.1), 1, "mean end_to_end", "100 ms (2 of 3)"),
        # An interval wider than the figure says nothing: the repeats do.
        ((0.02, 0.48), 0, "goodput", "0.25 (0.02 to 0.48)"),
        ((0.02, 0.48), 1, "goodput", "0.25 (0.02 to 0.48) (2 of 3)"),
        ((0.50, 0.52), 0, "accuracy", "51.0 % ± 12.7"),
        ((0.90, 1.00), 0, "accuracy", "95.0 % (90.0 % to 100.0 %)"),
    ],
)
def test_spread_is_printed_where_it_means_something(
    values: tuple[float, ...], missing: int, figure: str, text: str
) -> None:
    assert with_spread(Repeated(values, missing), figure) == text
