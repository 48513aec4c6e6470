"""The HTML report: one file that needs nothing else."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loadtest.analysis.figures import mix_name
from loadtest.analysis.named import NAMED, named_figures
from loadtest.analysis.summary import LoadSummary, Summary
from loadtest.analysis.units import duration, show, three_digits
from loadtest.records import Cell
from loadtest.reporting.plots import (
    Plot,
    colours,
    latency_plot,
    pareto_plot,
    price_plot,
    throughput_plot,
    timeline_plot,
)
from loadtest.reporting.table import columns
from loadtest.reporting.terminal import heads, table_rows

TEMPLATE = "report.html.jinja"
MOST_TILES = 5


@dataclass(frozen=True)
class Section:
    """All of one load."""

    load: LoadSummary
    tables: list[tuple[list[str], list[list[str]]]]
    """Heads and rows: latencies, then rates."""
    plots: list[Plot]
    failures: list[tuple[str, str, int, str]]
    """Row, kind, number, an example's message."""


def write_report(summary: Summary, path: Path) -> None:
    """Write the report; raises `OSError` where the disk takes no more."""
    path.write_text(render(summary), encoding="utf-8")


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
        throughput=throughput(summary),
        sections=[section(n, load, summary) for n, load in enumerate(summary.loads)],
        timelines=[
            timeline_plot(f"timeline-{number}", cell)
            for number, cell in enumerate(run.cells)
            if cell.records and cell.repeat == 0
        ],
        clients=[(f"{mix_name(c)}, {c.load}, {c.repeat + 1}", c.client) for c in run.cells],
        counters=[(f"{mix_name(c)}, {c.load}, {c.repeat + 1}", counters(c)) for c in run.cells],
        every_figure=every_figure(summary),
        meanings=[(figure.name, figure.meaning) for figure in NAMED.values()],
    )


def headline(summary: Summary) -> list[tuple[str, str]]:
    """The answers that a reader came for: a figure and what it says."""
    tiles: list[tuple[str, str]] = []
    for load in summary.loads:
        if load.price:
            relative = f"{load.price.relative:.2f}"
            tiles.append(
                (relative, f"visible tokens is the price of a thought token, {load.title}")
            )
        best = [point for point in load.bought if point.on_front]
        if best:
            text = f"right with budget {best[-1].budget}, the most accurate, {load.title}"
            tiles.append((f"{best[-1].accuracy.value:.1%}", text))
    whole = [row for row in summary.rows if not row.is_part]
    requests = sum(repeat.requests for row in whole for repeat in row.repeats)
    failed = sum(sum(row.failures.values()) for row in whole)
    return [*tiles[:MOST_TILES], (f"{requests}", f"requests measured, {failed} of them failed")]


def throughput(summary: Summary) -> Plot | None:
    """The plot over all loads of single budgets, if there are any."""
    swept = [load for load in summary.loads if load.mix is None]
    return throughput_plot("throughput", swept, colours(summary.rows)) if swept else None


def section(number: int, load: LoadSummary, summary: Summary) -> Section:
    """Table and plots of one load."""
    colour = colours(summary.rows)
    shown = columns(summary.loads)
    parts = [[column for column in shown if column.timed is timed] for timed in (True, False)]
    plots = (
        price_plot(f"price-{number}", load, colour),
        pareto_plot(f"pareto-{number}", load, colour),
        latency_plot(f"latency-{number}", load, colour),
    )
    return Section(
        load,
        [(heads(part), table_rows(load, part)) for part in parts],
        [plot for plot in plots if plot],
        [found for row in load.rows if not row.is_part for found in failures(row.name, row.cells)],
    )


def failures(name: str, cells: Sequence[Cell]) -> list[tuple[str, str, int, str]]:
    """Kinds of failures with an example each, warm-up left out."""
    found: dict[str, tuple[int, str]] = {}
    for cell in cells:
        for record in cell.records:
            if record.failure is not None and not record.warmup:
                count, example = found.get(record.failure.value, (0, record.message or ""))
                found[record.failure.value] = (count + 1, example)
    return [(name, kind, count, example) for kind, (count, example) in found.items()]


def counters(cell: Cell) -> list[tuple[str, str]]:
    """The server's counters that moved, by how much."""
    moved = ((name, after - before) for name, (before, after) in sorted(cell.server.items()))
    return [(name, f"{change:,.6g}") for name, change in moved if change]


def every_figure(summary: Summary) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each repeat of each row with all its figures as text."""
    return [
        (
            f"budget {row.name}, {row.load}, repeat {cell.repeat + 1}",
            [
                (name, show(value, NAMED[name].unit))
                for name, value in named_figures(figures).items()
            ],
        )
        for row in summary.rows
        for cell, figures in zip(row.cells, row.repeats, strict=True)
    ]
