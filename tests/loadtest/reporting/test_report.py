"""The HTML report."""

import re
from html.parser import HTMLParser
from itertools import chain

import pytest

from loadtest.analysis.price import price_sentence
from loadtest.analysis.summary import summarise
from loadtest.records import Failure, Run
from loadtest.reporting.plots import SERIES, colours
from loadtest.reporting.report import counters, render
from loadtest.reporting.table import parts
from tests.support.loadtest.records import gated, made_cell, made_record, made_run, sweep
from tests.support.loadtest.tables import tables_of


class Page(HTMLParser):
    """Texts, ids and links of a report."""

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


def test_every_plot_has_a_text_alternative(html: str) -> None:
    assert html.count("<svg") == html.count('class="unseen"') == html.count("<figure")
    assert "b = 16: 9" in html  # accuracy at the largest budget, in words


def test_failures_are_listed_by_kind_with_an_example() -> None:
    records = [made_record(n, n / 10) for n in range(50)]
    records += [made_record(n, 1.0, failure=Failure.TIMEOUT) for n in range(50, 53)]
    page = Page(render(summarise(made_run([made_cell(records, (0.0, 5.0))]))))
    where = page.texts.index("timeout")
    assert [text for text in page.texts[where:] if text][:3] == [
        *("timeout", "3", "the server said no")
    ]


def test_answers_that_arrive_at_once_make_a_report() -> None:
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


def test_a_run_without_requests_makes_a_report() -> None:
    page = Page(render(summarise(made_run([made_cell([], (0.0, 1.0))]))))
    assert any("nothing was measured" in text for text in page.texts)


def test_thresholds_are_rows_points_and_a_recommendation() -> None:
    summary = summarise(made_run(gated()))
    (load,) = summary.loads
    assert [row.name for row in load.rows] == [
        *("0", "8, threshold 0", "8, threshold 0.1", "8, threshold 0.5")
    ]
    html = render(summary)
    texts = Page(html).texts
    assert "threshold" in texts
    assert [row[:2] for row in tables_of(load)[0]] == [
        *(["0", "–"], ["8", "0"], ["8", "0.1"], ["8", "0.5"])
    ]
    passes, seconds = load.fronts
    assert [(point.setting.label, point.on_front) for point in passes.points] == [
        ("b = 0", True),
        ("b = 8 at 0.5 nats", False),
        ("b = 8 at 0.1 nats", True),
        ("b = 8 at 0 nats", False),
    ]
    assert [point.cost for point in passes.points] == [1, 1, 3.25, 9]
    assert passes.sentence == (
        "The cheapest setting within 1 point of the best accuracy: b = 8 at 0.1 nats, 95.0% right "
        "for 3.25 passes per visible token."
    )
    for front in (passes, seconds):
        assert sum(front.sentence in text for text in texts) == 1
    assert "with budget 8, threshold 0.1, the cheapest within 1 point" in " ".join(texts)
    plots = re.split("<figure", html)
    (by_passes,) = (plot for plot in plots if "What it buys, by passes" in plot)
    # Dominated points are pale, with their labels and intervals; the others are not.
    assert set(re.findall(r"opacity: ([\d.]+)", by_passes)) == {"0.35"}
    assert by_passes.count(">b = 8 at 0.1 nats</text>") == 1


def test_what_the_server_has_counted_is_listed_and_summed_up() -> None:
    counted = {
        'quietstar:engine_passes_total{model_name="m"}': (0.0, 40.0),
        'quietstar:engine_rows_total{model_name="m"}': (10.0, 90.0),
        'quietstar:thought_drafts_total{model_name="m"}': (0.0, 50.0),
        'quietstar:thought_drafts_accepted_total{model_name="m"}': (5.0, 25.0),
        "vllm:never": (3.0, 3.0),
    }
    cell = made_cell([made_record(0, 0.0)], (0.0, 1.0)).model_copy(update={"server": counted})
    listed = dict(counters(cell))
    assert listed["requests in a pass of the engine, on average"] == "2.00"
    right = listed["drafts of thought tokens that were right"]
    assert right == "40%, which saved 20% of all passes"
    assert listed['quietstar:thought_drafts_total{model_name="m"}'] == "50"
    assert "vllm:never" not in listed


@pytest.mark.parametrize("number", [2, 8, 9, 30])
def test_every_setting_has_a_colour_of_its_own(number: int) -> None:
    """In the order of how much is thought, from the first series to the last where many are."""
    cells = [
        made_cell([made_record(0, 0.5, budget)], (0, 1), {str(budget): 1})
        for budget in range(number)
    ]
    found = colours(summarise(made_run(cells)).rows)
    assert [setting.budget for setting in found] == list(map(str, range(number)))
    assert len(set(found.values())) == number
    used = list(found.values())
    assert (used[0], used[-1]) == (SERIES[0], SERIES[min(number, len(SERIES)) - 1])


def test_many_settings_are_told_apart_in_a_report() -> None:
    cells = sweep(budgets=range(30), loads=["closed:4"], repeats=1, requests=10)
    html = render(summarise(made_run(cells)))
    # Nothing that stands for a colour is left.
    assert not re.search("#0[0-9ab][0-9a-f]{4}", html)
    mixes = re.findall(r"color-mix\(in oklab, var\(--series-\d\), var\(--series-\d\) \d+%\)", html)
    assert len(set(mixes)) == 28
    # In tables, too.
    assert html.count('<i class="dot"') >= 30
    # Neighbours, whose colours are close, have other line styles, too.
    assert html.count("stroke-dasharray") > 20
