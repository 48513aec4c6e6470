"""The summary as a table, for terminal and report."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis.figures import ALL
from loadtest.analysis.intervals import Repeated
from loadtest.analysis.named import NAMED
from loadtest.analysis.summary import LoadSummary, Row
from loadtest.analysis.units import show, three_digits


@dataclass(frozen=True)
class Column:
    """A named figure and its heading; adjacent columns of one group share the group's name."""

    group: str
    head: str
    figure: str
    of_reasoning: bool = False
    """Shown only where a server streams its reasoning."""

    @property
    def title(self) -> str:
        """Group and heading."""
        return f"{self.group} {self.head}".strip()

    @property
    def timed(self) -> bool:
        """Whether this is a latency, not a count or rate."""
        return NAMED[self.figure].unit == "s"


COLUMNS = (
    Column("", "requests", "requests"),
    Column("", "failed", "failure_share"),
    Column("first reasoning token", "p50", "p50 time_to_first_reasoning_token"),
    Column("first reasoning token", "p95", "p95 time_to_first_reasoning_token"),
    Column("thinking", "mean", "mean thinking_time"),
    Column("thinking", "p95", "p95 thinking_time"),
    Column("per reasoning token", "mean", "mean time_per_reasoning_token"),
    Column("first token", "p50", "p50 time_to_first_token"),
    Column("first token", "p95", "p95 time_to_first_token"),
    Column("first token", "p99", "p99 time_to_first_token"),
    Column("per visible token", "mean", "mean time_per_visible_token"),
    Column("per visible token", "p95", "p95 time_per_visible_token"),
    Column("per visible token", "p99", "p99 time_per_visible_token"),
    Column("end to end", "p50", "p50 end_to_end"),
    Column("end to end", "p95", "p95 end_to_end"),
    Column("end to end", "p99", "p99 end_to_end"),
    Column("", "completed/s", "completed_rate"),
    Column("", "goodput/s", "goodput"),
    Column("", "visible tokens/s", "visible_tokens_per_s"),
    Column("", "thought tokens/s", "thought_tokens_per_s"),
    Column("passes", "per s", "passes_per_s"),
    Column("passes", "per token", "passes_per_visible_token"),
    Column("tokens per answer", "thought", "thought_tokens_per_answer", of_reasoning=True),
    Column("tokens per answer", "visible", "visible_tokens_per_answer", of_reasoning=True),
    Column("", "cut while thinking", "cut_thinking_share", of_reasoning=True),
    Column("", "thought about", "thought_share"),
    Column("", "right", "accuracy"),
)

PART_FIGURES = (
    "requests",
    "failure_share",
    "completed_rate",
    "goodput",
    "visible_tokens_per_s",
    "p50 time_to_first_reasoning_token",
    "p50 time_to_first_token",
    "p95 time_to_first_token",
    "mean time_per_visible_token",
    "p95 time_per_visible_token",
    "p95 end_to_end",
)


def parts(load: LoadSummary) -> list[list[Column]]:
    """The columns of a load's two tables, latencies and rates, without those that would be
    empty."""
    reasons = any(row.figure("cut_thinking_share") for row in load.rows)
    shown = [
        column
        for column in COLUMNS
        if any(row.figure(column.figure) for row in load.rows)
        and (reasons or not column.of_reasoning)
    ]
    tables = ([column for column in shown if column.timed is timed] for timed in (True, False))
    return [columns for columns in tables if columns]


def part_rows(load: LoadSummary) -> list[tuple[Row, ...]]:
    """The rows of each further table of a load: the steps of a ramp, its servers."""
    return [rows for rows in (load.steps, load.by_server) if rows]


def part_columns(load: LoadSummary) -> list[Column]:
    """Those of a table of steps or servers: all in one."""
    shown = [column for part in parts(load) for column in part]
    return [column for column in shown if column.figure in PART_FIGURES]


def first_heads(load: LoadSummary) -> list[str]:
    """The headings of the columns that say what a row is."""
    return ["budget", *(["threshold"] if load.has_thresholds else []), "cost"]


def part_heads(load: LoadSummary, rows: Sequence[Row]) -> list[str]:
    """Those of a ramp's steps, or of several servers."""
    return [*first_heads(load)[:-1], "due/s" if rows[0].url is None else "server"]


def part_entries(load: LoadSummary, row: Row) -> list[str]:
    """The entries below `part_heads`."""
    return [*first_entries(load, row)[:-1], row.url or three_digits(row.rate or 0.0)]


def first_entries(load: LoadSummary, row: Row) -> list[str]:
    """The entries below `first_heads`."""
    threshold = "–" if row.threshold is None else f"{row.threshold:.12g}"
    thresholds = [threshold] if load.has_thresholds else []
    return [row.budget, *thresholds, relative_cost(load, row)]


def entry(row: Row, column: Column) -> str:
    """A figure as text, mean ± t interval over repeats; `–` where there is none."""
    found = row.figure(column.figure)
    if found is None:
        return "–"
    if column.figure == "requests":
        return f"{sum(found.values):.0f}"
    return with_spread(found, column.figure)


def with_spread(found: Repeated, figure: str) -> str:
    """`12.3 ms ± 4 %`, or `12.3 ms (1 of 3)` where repeats do not have it. Where the interval is
    wider than the figure itself, `0.25 (0.02 to 0.47)`: the repeats as they are."""
    text = show(found.mean, NAMED[figure].unit)
    total = len(found.values) + found.missing
    missing = f" ({len(found.values)} of {total})" if found.missing else ""
    return text + _spread(found, figure) + missing


def _spread(found: Repeated, figure: str) -> str:
    half = found.half_width
    if half is None or not half or not found.mean:
        return ""
    unit = NAMED[figure].unit
    beyond_1 = unit == "share" and found.mean + half > 1
    if half >= abs(found.mean) or beyond_1:
        return f" ({show(min(found.values), unit)} to {show(max(found.values), unit)})"
    if unit == "share":
        return f" ± {100 * half:.1f}"
    relative = 100 * half / abs(found.mean)
    return f" ± {relative:.0f} %" if relative >= 0.95 else ""


def relative_cost(load: LoadSummary, row: Row) -> str:
    """The mean time per visible token over that of budget 0 under the same load; with a budget
    field, the mean time of an answer over that of the least value."""
    figure = "mean time_per_visible_token"
    base = next((other for other in load.by_budget if other.budget == "0"), None)
    if any(other.setting.field for other in load.rows):
        figure = "mean end_to_end"
        base = min(load.rows, key=lambda other: other.setting.thinking)
    if base is None or row.budget == ALL:
        return "–"
    own, zero = (r.figure(figure) for r in (row, base))
    # If all tokens arrive at once, the time per token is 0.
    return f"{own.mean / zero.mean:.1f} ×" if own and zero and zero.mean else "–"
