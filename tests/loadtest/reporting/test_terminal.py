"""Tables in the terminal."""

import io

from rich.console import Console

from loadtest.analysis.price import price_sentence
from loadtest.analysis.summary import summarise
from loadtest.records import Failure, Run
from loadtest.reporting.terminal import print_summary
from tests.support.loadtest.records import made_cell, made_record, made_run
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


def test_the_commonest_reasons_of_failures_are_beside_their_number() -> None:
    messages = ["500: worker 7 broke", "500: worker 8 broke", "500: no memory", "404: gone"]
    messages += ["418: teapot", "500: worker 9 broke", "404: gone"]
    records = [
        made_record(n, n / 10, failure=Failure.HTTP).model_copy(update={"message": message})
        for n, message in enumerate(messages)
    ]
    console = Console(file=io.StringIO(), width=80)
    print_summary(summarise(made_run([made_cell(records, (0.0, 10.0))])), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line for line in lines if line.startswith("failed: ")] == [
        "failed: 0, constant:10: 3 http: 500: worker 7 broke",
        "failed: 0, constant:10: 2 http: 404: gone",
        "failed: 0, constant:10: 1 http: 500: no memory",
        "failed: 0, constant:10: 1 for other reasons (in the report)",
    ]
