"""The tables of a report as text."""

from loadtest.analysis.summary import LoadSummary
from loadtest.reporting.table import parts
from loadtest.reporting.terminal import table_rows


def tables_of(load: LoadSummary) -> list[list[list[str]]]:
    """Latencies and rates, each a list of rows."""
    return [table_rows(load, shown) for shown in parts(load)]
