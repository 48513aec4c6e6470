"""Markdown tables."""

from benchmarks.tables import table


def test_columns_are_aligned_and_numbers_flush_right() -> None:
    assert table(["kind", "n"], [["a", "10"], ["longer", "1234"]], numbers_from=1).splitlines() == [
        "| kind   |    n |",
        "|--------|-----:|",
        "| a      |   10 |",
        "| longer | 1234 |",
    ]
