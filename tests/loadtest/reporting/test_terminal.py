"""Tables in the terminal."""

import io

import pytest
from rich.console import Console

from loadtest.analysis.price import price_sentence
from loadtest.analysis.summary import LoadSummary, summarise
from loadtest.records import Run
from loadtest.reporting.table import parts
from loadtest.reporting.terminal import print_summary, table_rows
from tests.support.loadtest.records import made_run, mixed, sweep

LEVELS = ["p95 time_per_visible_token<=50ms"]


@pytest.fixture(scope="module")
def run() -> Run:
    return made_run([*sweep(loads=("closed:4",), repeats=2), mixed()], levels=LEVELS)


def tables_of(load: LoadSummary) -> list[list[list[str]]]:
    return [table_rows(load, shown) for shown in parts(load)]


def test_warnings_tables_and_prices_are_plain_text(run: Run) -> None:
    console = Console(file=io.StringIO(), width=80)
    summary = summarise(run.model_copy(update={"warnings": ["[mind] this"]}))
    print_summary(summary, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "warning: [mind] this"
    for load in summary.loads:
        where = lines.index(load.title)
        lines_of_load = iter(lines[where + 1 :])
        for rows in tables_of(load):
            assert next(lines_of_load).split()[:2] == ["budget", "cost"]
            for row in rows:
                assert next(lines_of_load).split() == " ".join(row).split()
        assert load.price is not None
        assert price_sentence(load.price) in lines
