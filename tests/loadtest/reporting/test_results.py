"""Files: what is written can be read, whatever happened in between."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pytest
from rich.console import Console

from loadtest.analysis.named import NAMED
from loadtest.analysis.price import price_sentence
from loadtest.analysis.summary import LoadSummary, summarise
from loadtest.errors import LoadTestError
from loadtest.records import Failure, Run
from loadtest.reporting.report import render
from loadtest.reporting.results import Recorder, load_run, write_summary
from loadtest.reporting.table import parts
from loadtest.reporting.terminal import print_summary, table_rows
from tests.support.loadtest.records import made_cell, made_record, made_run, mixed, sweep

LEVELS = ["p95 time_per_visible_token<=50ms"]


@pytest.fixture(scope="module")
def run() -> Run:
    return made_run([*sweep(loads=("closed:4",), repeats=2), mixed()], levels=LEVELS)


def written(run: Run, folder: Path) -> Path:
    recorder = Recorder(folder, run.model_copy(update={"cells": []}))
    for cell in run.cells:
        recorder.begin(cell.model_copy(update={"records": [], "client": None, "partial": True}))
        for record in cell.records:
            recorder.record(record)
        recorder.end(cell)
    recorder.close()
    return folder


def test_what_is_written_is_read_again(run: Run, tmp_path: Path) -> None:
    folder = written(run, tmp_path / "results")
    assert load_run(folder) == run
    assert load_run(folder / "run.json") == run


def test_run_json_explains_itself(run: Run, tmp_path: Path) -> None:
    content = json.loads((written(run, tmp_path / "results") / "run.json").read_text())
    assert set(content["about"]["figures"]) == set(NAMED)
    figures = content["cells"][0]["figures"]["all"]
    assert figures["requests"] == len(run.cells[0].records)
    assert set(content["cells"][-1]["figures"]) == {"all", "0", "4", "16"}
    assert "records" not in content["cells"][0]


def test_a_folder_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="never overwritten"):
        Recorder(tmp_path, run)


def test_a_newer_schema_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    file = written(run, tmp_path / "results") / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    with pytest.raises(LoadTestError, match=r"schema version 99, this program reads up to 1"):
        load_run(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "is no run.json"),
        ("run.json", "[]", "is no run.json"),
        ("run.json", '{"schema_version": 1, "cells": []}', "label: Field required"),
        ("requests.jsonl", "{}\n{}\n", "line 1: no record"),
    ],
)
def test_broken_files_are_one_line(
    run: Run, tmp_path: Path, name: str, content: str, message: str
) -> None:
    folder = written(run, tmp_path / "results")
    (folder / name).write_text(content)
    with pytest.raises(LoadTestError, match=message) as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)


def test_missing_files_are_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="does not exist"):
        load_run(tmp_path / "nowhere")
    folder = written(run, tmp_path / "results")
    (folder / "requests.jsonl").unlink()
    with pytest.raises(LoadTestError, match=r"requests\.jsonl is missing"):
        load_run(folder)


def test_a_crash_in_the_middle_of_a_cell_loses_nothing_measured(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "results", made_run([]))
    cell = made_cell([made_record(n, n / 10) for n in range(50)], (0.0, 5.0))
    recorder.begin(cell.model_copy(update={"records": [], "client": None, "partial": True}))
    for record in cell.records:
        recorder.record(record)
    # The program dies here, in the middle of a line, and closes nothing.
    with (tmp_path / "results/requests.jsonl").open("a") as file:
        file.write('{"cell": 0, "ind')
    run = load_run(tmp_path / "results")
    assert run.cells[0].records == cell.records
    assert run.cells[0].partial
    summary = summarise(run)
    assert summary.rows[0].repeats[0].succeeded == 50
    assert any("torn" in warning for warning in summary.warnings)
    assert any("cut short" in warning for warning in summary.warnings)
    recorder.close()


def test_the_csv_has_a_row_for_each_repeat_and_part(run: Run, tmp_path: Path) -> None:
    write_summary(summarise(run), tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 2 + 4
    assert set(NAMED) < set(rows[0])
    assert float(rows[0]["requests"]) == 80
    assert {row["budget"] for row in rows[-4:]} == {"all", "0", "4", "16"}


class Page(HTMLParser):
    """Everything that a report says and links."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(given["id"] or "")
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return render(summarise(run.model_copy(update={"warnings": ["<mind> this"]})))


def test_the_report_is_one_file_and_well_formed(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    # The server's own address is text, not a link; nothing else has a host.
    assert html.count("http") == html.count("http://127.0.0.1:8000")
    assert "<script" not in html


def test_the_report_has_all_figures_that_the_terminal_has(run: Run, html: str) -> None:
    texts = Page(html).texts
    summary = summarise(run)
    for load in summary.loads:
        for column in chain.from_iterable(parts(load)):
            assert {column.group, column.head} <= {"", *texts}
        for row in chain.from_iterable(tables_of(load)):
            # The spread is a text of its own.
            for cell in row:
                assert set(re.split(" (?=±)", cell)) <= set(texts)
        assert load.price is not None
        assert price_sentence(load.price) in texts
    assert texts.index("Read these first") < texts.index("closed:4")
    assert "<mind> this" in texts
    assert "python -m loadtest --url http://127.0.0.1:8000" in texts


def tables_of(load: LoadSummary) -> list[list[list[str]]]:
    return [table_rows(load, shown) for shown in parts(load)]


def test_the_terminal_says_warnings_tables_and_prices_in_plain_text(run: Run) -> None:
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


def test_every_plot_has_words_for_those_who_do_not_see_it(html: str) -> None:
    assert html.count("<svg") == html.count('class="unseen"') == html.count("<figure")
    assert "b = 16: 9" in html  # accuracy at the largest budget, in words


def test_failures_are_told_by_kind_with_an_example() -> None:
    records = [made_record(n, n / 10) for n in range(50)]
    records += [made_record(n, 1.0, failure=Failure.TIMEOUT) for n in range(50, 53)]
    page = Page(render(summarise(made_run([made_cell(records, (0.0, 5.0))]))))
    where = page.texts.index("timeout")
    assert [text for text in page.texts[where:] if text][:3] == [
        *("timeout", "3", "the server said no")
    ]


def test_answers_that_come_as_a_whole_are_still_a_report() -> None:
    cells = [
        made_cell(
            [made_record(n, n / 10, budget, per_token=0.0) for n in range(10)],
            (0.0, 1.0),
            {str(budget): 1.0},
        )
        for budget in (0, 4)
    ]
    summary = summarise(made_run(cells))
    (load,) = summary.loads
    assert load.price is None
    assert [row[1] for row in tables_of(load)[0]] == ["–", "–"]
    assert "constant:10" in Page(render(summary)).texts


def test_a_run_without_anything_is_still_a_report() -> None:
    page = Page(render(summarise(made_run([made_cell([], (0.0, 1.0))]))))
    assert any("nothing was measured" in text for text in page.texts)
