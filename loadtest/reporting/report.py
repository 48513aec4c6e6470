"""The HTML report: one file that needs nothing else."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loadtest.analysis.failures import Reason, reasons
from loadtest.analysis.named import NAMED, named_figures
from loadtest.analysis.settings import Setting, setting_name
from loadtest.analysis.summary import LoadSummary, Summary
from loadtest.analysis.units import duration, show, three_digits
from loadtest.records import Cell
from loadtest.reporting.plots import (
    Plot,
    colours,
    in_css,
    latency_plot,
    pareto_plot,
    price_plot,
    throughput_plot,
    timeline_plot,
)
from loadtest.reporting.results import replace_file
from loadtest.reporting.table import (
    Column,
    first_heads,
    part_columns,
    part_heads,
    part_rows,
    parts,
)
from loadtest.reporting.terminal import part_table_rows, table_rows
from loadtest.reporting.verdict import verdict

TEMPLATE = "report.html.jinja"
MOST_TILES = 5
LOADS = {
    "closed": "A number of users; each sends its next request when its last one is answered.",
    "constant": "Requests per second, evenly spaced, whether or not earlier ones are answered.",
    "poisson": "Requests per second at random times, whether or not earlier ones are answered.",
    "gamma": "Requests per second in bursts: cv is the standard deviation of the gaps divided by "
    "their mean (1 = at random).",
    "ramp": "Requests at random times, at rates that go from the first to the second in steps.",
    "trace": "Requests at the times of a file.",
}


@dataclass(frozen=True)
class Head:
    """The heading of a column, or of a group of columns with headings of their own below."""

    text: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text, the budget first, with a colour for each row of a single budget."""

    heads: list[Head]
    rows: list[tuple[str | None, list[str]]]

    @property
    def grouped(self) -> bool:
        """Whether the heads take two lines."""
        return any(head.parts for head in self.heads)


@dataclass(frozen=True)
class Section:
    """One load; `about` explains it."""

    load: LoadSummary
    about: str
    tables: list[Table]
    """Latencies, rates, the steps of a ramp, and each of several servers."""
    plots: list[Plot]
    failures: list[tuple[str, Reason]]
    """Row, and why requests failed."""


def write_report(summary: Summary, path: Path) -> None:
    """Write the report; raises `OSError` where it cannot be written."""
    replace_file(path, render(summary))


def render(summary: Summary) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=PackageLoader("loadtest.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "digits": three_digits, "svg": Markup}
    run = summary.run
    return environment.get_template(TEMPLATE).render(
        summary=summary,
        run=run,
        command=shlex.join(run.command),
        headline=headline(summary),
        verdicts=[(load.title, text) for load in summary.loads if (text := verdict(load))],
        throughput=throughput(summary),
        sections=[section(n, load, summary) for n, load in enumerate(summary.loads)],
        timelines=[
            timeline_plot(f"timeline-{number}", cell)
            for number, cell in enumerate(run.cells)
            if cell.records and cell.repeat == 0
        ],
        clients=[(cell_name(cell), cell.client) for cell in run.cells],
        counters=[(cell_name(cell), counters(cell)) for cell in run.cells],
        every_figure=every_figure(summary),
        meanings=[(figure.name, figure.meaning) for figure in NAMED.values()],
    )


def cell_name(cell: Cell) -> str:
    """Budget, threshold, load and repeat."""
    return f"{setting_name(cell)}, {cell.load}, {cell.repeat + 1}"


def headline(summary: Summary) -> list[tuple[str, str]]:
    """The main results: figures and what they mean."""
    tiles: list[tuple[str, str]] = []
    for load in summary.loads:
        if load.price:
            bounds = load.price.relative_interval
            text = f"visible tokens for a thought token ({bounds.low:.2f} to {bounds.high:.2f})"
            tiles.append((f"{load.price.relative:.2f}", f"{text}, {load.title}"))
        for front in [front for front in load.fronts[:1] if front.judged]:
            best, enough = front.most_accurate, front.recommended
            text = f"right answers with budget {best.setting.name}, the most accurate, {load.title}"
            tiles.append((f"{best.accuracy.value:.1%}", text))
            if front.is_choice:
                text = f"per {front.cost.unit} with budget {enough.setting.name}, "
                text += f"the cheapest within 1 point of that, {load.title}"
                tiles.append((front.cost.show(enough.cost), text))
    whole = [row for row in summary.rows if not row.is_part]
    requests = sum(repeat.requests for row in whole for repeat in row.repeats)
    failed = sum(sum(row.failures.values()) for row in whole)
    text = f"requests measured, {failed} of them failed" if failed else "requests, none failed"
    return [*tiles[:MOST_TILES], (f"{requests:,}", text)]


def throughput(summary: Summary) -> Plot | None:
    """The plot over all loads of single budgets, if there are any."""
    swept = [load for load in summary.loads if load.mix is None]
    return throughput_plot("throughput", swept, colours(summary.rows)) if swept else None


def section(number: int, load: LoadSummary, summary: Summary) -> Section:
    """Tables and plots of one load."""
    colour = colours(summary.rows)
    plots = (
        price_plot(f"price-{number}", load, colour),
        *(
            pareto_plot(f"pareto-{number}-{place}", load, front, colour)
            for place, front in enumerate(load.fronts)
        ),
        latency_plot(f"latency-{number}", load, colour),
    )
    return Section(
        load,
        LOADS[load.load.partition(":")[0]],
        [
            *(
                Table(heads_of(first_heads(load), part), rows_of(load, part, colour))
                for part in parts(load)
            ),
            *part_tables(load, colour),
        ],
        [plot for plot in plots if plot],
        [
            (row.name, reason)
            for row in load.rows
            if not row.is_part
            for reason in reasons(row.cells)
        ],
    )


def part_tables(load: LoadSummary, colour: Mapping[Setting, str]) -> Iterator[Table]:
    """The steps of a ramp, and the servers, if there are several."""
    for rows in part_rows(load):
        texts = zip(rows, part_table_rows(load, rows), strict=True)
        yield Table(
            heads_of(part_heads(load, rows), part_columns(load)),
            [(in_css(colour.get(row.setting, "")), cells) for row, cells in texts],
        )


def heads_of(first: Sequence[str], shown: Sequence[Column]) -> list[Head]:
    """Headings; adjacent columns of one group share one."""
    heads = [Head(text) for text in first]
    for group, members in groupby(shown, lambda column: column.group):
        texts = tuple(column.head for column in members)
        heads += [Head(group, texts)] if group else [Head(text) for text in texts]
    return heads


def rows_of(
    load: LoadSummary, shown: list[Column], colour: Mapping[Setting, str]
) -> list[tuple[str | None, list[str]]]:
    """The rows of the terminal's table, each with its setting's colour, or none."""
    return [
        (in_css(colour.get(row.setting, "")), cells)
        for row, cells in zip(load.rows, table_rows(load, shown), strict=True)
    ]


def counters(cell: Cell) -> list[tuple[str, str]]:
    """The increase of each server counter that changed; first the mean batch size, if the server
    counts its passes, and what its drafts of thought tokens have saved, if it drafts."""
    moved = {name: after - before for name, (before, after) in sorted(cell.server.items())}
    passes, rows, drafts, right = (
        sum(change for name, change in moved.items() if name.startswith(f"quietstar:{what}_total"))
        for what in ("engine_passes", "engine_rows", "thought_drafts", "thought_drafts_accepted")
    )
    listed = [(name, f"{change:,.6g}") for name, change in moved.items() if change]
    if drafts:
        saved = f"{right / drafts:.0%}, which saved {right / (rows + right):.0%} of all passes"
        listed.insert(0, ("drafts of thought tokens that were right", saved))
    if passes:
        listed.insert(0, ("requests in a pass of the engine, on average", f"{rows / passes:.2f}"))
    return listed


def every_figure(summary: Summary) -> list[tuple[str, int, list[tuple[str, list[str]]]]]:
    """Each row of the tables: its name, how many repeats it has, and its figures in each."""
    found = []
    for row in summary.rows_and_parts:
        repeats = [named_figures(figures) for figures in row.repeats]
        names = [name for name in NAMED if any(name in repeat for repeat in repeats)]
        lines = [
            (name, [show(r[name], NAMED[name].unit) if name in r else "–" for r in repeats])
            for name in names
        ]
        found.append((f"budget {row.name}, {row.load}", len(repeats), lines))
    return found
