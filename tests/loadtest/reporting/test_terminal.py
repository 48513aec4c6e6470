"""Tables in the terminal."""

import io

from rich.console import Console

from loadtest.analysis.price import price_sentence
from loadtest.analysis.summary import summarise
from loadtest.records import Run
from loadtest.reporting.terminal import print_summary
from tests.support.loadtest.tables import tables_of


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
