"""Output in the terminal: a live view while the test runs, tables when it has ended."""

from collections import deque
from collections.abc import Sequence
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from loadtest.analysis.failures import reasons
from loadtest.analysis.figures import CUT_SHORT
from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.percentiles import distribution
from loadtest.analysis.price import price_sentence
from loadtest.analysis.summary import LoadSummary, Row, Summary
from loadtest.analysis.units import duration, three_digits
from loadtest.records import Cell, Record
from loadtest.reporting.table import (
    Column,
    entry,
    first_entries,
    first_heads,
    part_columns,
    part_entries,
    part_heads,
    part_rows,
    parts,
)
from loadtest.reporting.verdict import verdict
from loadtest.sending.progress import Snapshot, Upcoming

RECENT_SECONDS = 10.0
RECENT_REQUESTS = 5000
"""Number of requests whose latencies are shown while the test runs: sorting all of them several
times a second would take CPU time that the workers need."""
MOST_REASONS = 3
"""Reasons of failures that the terminal shows of a row."""
_SHOWN = ("time_to_first_token", "time_per_visible_token", "end_to_end")


class LiveView:
    """A watcher that shows the running cell; without a terminal, one line per cell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._cell: Upcoming | None = None
        self._records: deque[Record] = deque(maxlen=RECENT_REQUESTS)
        self._recent: deque[tuple[float, int]] = deque()
        self._latest_failure = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def started(self, cell: Upcoming) -> None:
        self._cell = cell
        self._records.clear()
        self._recent.clear()
        self._latest_failure = ""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(_title(cell), total=cell.seconds or cell.requests)

    def update(self, snapshot: Snapshot) -> None:
        if not self._console.is_terminal or self._cell is None:
            return
        self._records += [r for r in snapshot.fresh if r.failure is None and not r.warmup]
        for record in snapshot.fresh:
            self._latest_failure = record.message or self._latest_failure
        self._recent.append((snapshot.elapsed, snapshot.finished))
        while snapshot.elapsed - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        done = snapshot.elapsed if self._cell.seconds else snapshot.finished
        for task in self._bar.task_ids:
            self._bar.update(task, completed=done)
        self._live.update(Group(self._bar, self._counts(snapshot), self._latencies()))

    def finished(self, cell: Cell) -> None:
        assert self._cell is not None
        failures = [record.failure for record in cell.records if record.failure is not None]
        failed = sum(failure not in CUT_SHORT for failure in failures)
        line = f"{_title(self._cell)}: {len(cell.records)} requests"
        if failed:
            line += f", {failed} failed"
            line += "".join(f" ({reason.text})" for reason in reasons([cell])[:1])
        line += ", cut short" * cell.partial + ", stopped" * (cell.stopped is not None)
        self._console.print(Text(line), soft_wrap=not self._console.is_terminal)

    def _counts(self, snapshot: Snapshot) -> RenderableType:
        since, before = self._recent[0]
        seconds = snapshot.elapsed - since
        rate = (snapshot.finished - before) / seconds if seconds else 0.0
        line = (
            f"{snapshot.phase}: {snapshot.finished} of {snapshot.due} answered, "
            f"{snapshot.in_flight} in flight, {snapshot.waiting} waiting at the client, "
            f"{three_digits(rate)} per second"
        )
        failures = ", ".join(f"{count} {kind}" for kind, count in snapshot.failures.items())
        if failures and self._latest_failure:
            failures += f"; the latest: {self._latest_failure[:200]}"
        return Group(
            Text(line), Text(f"failures: {failures}" if failures else "", style="bold red")
        )

    def _latencies(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("")
        for name in ("mean", "p50", "p90", "p95", "p99"):
            table.add_column(name, justify="right")
        for name in _SHOWN:
            latency = LATENCIES[name]
            found = distribution(value for r in self._records for value in latency.of(r))
            if found:
                values = {"mean": found.mean, **found.percentiles}
                cells = [duration(v) for n, v in values.items() if n != "p99.9"]
                table.add_row(latency.title, *cells)
        return table


def _title(cell: Upcoming) -> str:
    of = f"/{cell.total}" if cell.total else ""
    name = f"budget {cell.budgets.name}, {cell.load}, repeat {cell.repeat + 1}"
    return f"[{cell.number + 1}{of}] {name}"


def print_summary(summary: Summary, console: Console) -> None:
    """Warnings first, then the tables of each load."""

    def say(text: str, style: str = "") -> None:
        # Lines are wrapped in a terminal only, not in a file.
        console.print(Text(text, style), soft_wrap=not console.is_terminal)

    for warning in summary.warnings:
        say(f"warning: {warning}", "yellow")
    for load in summary.loads:
        console.print()
        say(load.title, "bold")
        for shown in parts(load):
            if console.is_terminal:
                console.print(_table(load, shown))
            else:
                print_table([heads(load, shown), *table_rows(load, shown)], console)
        for rows in part_rows(load):
            print_table([part_table_heads(load, rows), *part_table_rows(load, rows)], console)
        for sentence in load.held:
            say(sentence, "bold")
        if text := verdict(load):
            say(text, "bold")
        if load.price:
            say(price_sentence(load.price))
        for front in load.fronts:
            if front.is_choice:
                say(front.sentence)
    for note in summary.run.notes:
        say(note, "bold")
    for row in summary.rows:
        if not row.is_part:
            for line in failure_lines(row):
                say(line, "red")


def table_rows(load: LoadSummary, shown: list[Column]) -> list[list[str]]:
    """The rows of a load's table as text."""
    return [
        [*first_entries(load, row), *(entry(row, column) for column in shown)] for row in load.rows
    ]


def failure_lines(row: Row) -> list[str]:
    """The commonest reasons of a row's failures."""
    found = reasons(row.cells)
    lines = [f"failed: {row.name}, {row.load}: {reason.text}" for reason in found[:MOST_REASONS]]
    if rest := sum(reason.number for reason in found[MOST_REASONS:]):
        lines.append(f"failed: {row.name}, {row.load}: {rest} for other reasons (in the report)")
    return lines


def part_table_heads(load: LoadSummary, rows: Sequence[Row]) -> list[str]:
    """The headings of a table of steps or servers."""
    return [*part_heads(load, rows), *(column.title for column in part_columns(load))]


def part_table_rows(load: LoadSummary, rows: Sequence[Row]) -> list[list[str]]:
    """The rows of a table of steps or servers as text."""
    shown = part_columns(load)
    return [[*part_entries(load, row), *(entry(row, column) for column in shown)] for row in rows]


def heads(load: LoadSummary, shown: list[Column]) -> list[str]:
    """The headings of the columns."""
    return [*first_heads(load), *(column.title for column in shown)]


def _table(load: LoadSummary, shown: list[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for head in first_heads(load):
        table.add_column(f"\n{head}", justify="right")
    for column in shown:
        table.add_column(f"{column.group}\n{column.head}", justify="right", overflow="fold")
    for cells in table_rows(load, shown):
        table.add_row(*cells)
    return table


def print_table(lines: list[list[str]], console: Console) -> None:
    """Print aligned columns without frames or colours, one line per row, however wide."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        text = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        console.print(Text(text.rstrip()), soft_wrap=True)
