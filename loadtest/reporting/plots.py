"""The report's plots, as SVG that follows the page's colours, light or dark."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.pareto import Bought, Front
from loadtest.analysis.price import price_sentence
from loadtest.analysis.settings import Setting, mix_name
from loadtest.analysis.summary import LoadSummary, Row
from loadtest.analysis.timeline import timeline
from loadtest.analysis.units import duration
from loadtest.records import Cell, threshold_suffix

# Placeholders: in the SVG they are replaced by variables of the page's style sheet, which has a
# light and a dark scheme.
INK, MUTED, GRID, ACCENT, BAD = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    ACCENT: "--accent",
    BAD: "--bad",
    **{colour: f"--series-{n}" for n, colour in enumerate(SERIES, start=1)},
}
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
_SHORTEST = 1e-6
"""Seconds; below the resolution of any clock."""
LEGEND_COLUMNS = 6
NARROW_LEGEND_COLUMNS = 4
PALE = 0.35
"""Opacity of settings that another one beats."""
SECONDS = FuncFormatter(lambda value, _: duration(value) if value >= 0 else "")


@dataclass(frozen=True)
class Plot:
    """A plot with title and caption; `words` is its text alternative."""

    name: str
    title: str
    caption: str
    words: str
    svg: str


def draw(name: str, width: float, height: float, panels: int, fill: Callable[..., None]) -> str:
    """Let `fill` draw on a row of axes; the SVG, to be put into a page."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        fill(*np.atleast_1d(figure.subplots(1, panels)))
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _for_a_page(name, file.getvalue())


def _for_a_page(name: str, svg: str) -> str:
    """Without XML head, with ids that are unique in the page, and the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"(\d+(?:\.\d+)?px) 'DejaVu Sans'[^;\"]*", r"\1 var(--font)", svg)
    svg = in_css(svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true"', svg, count=1)


def colours(rows: Sequence[Row]) -> dict[Setting, str]:
    """A colour for each budget and threshold of a run, the same in all plots, from little thinking
    to much."""
    settings = {
        Setting(budget, cell.threshold, cell.budget_field)
        for row in rows
        for cell in row.cells
        for budget in cell.budgets
    }
    ordered = sorted(settings, key=lambda setting: setting.thinking)
    return {setting: _series(place, len(ordered)) for place, setting in enumerate(ordered)}


def _series(place: int, number: int) -> str:
    """The colour of one of so many settings: of a scale from the first series to the last, on which
    all lie apart, where there are more settings than series.
    """
    if number <= len(SERIES):
        return SERIES[place]
    lower, share = divmod(place * (len(SERIES) - 1), number - 1)
    percent = round(100 * share / (number - 1))
    return f"#0b{lower:02x}{percent:02x}" if percent else SERIES[lower]


def in_css(text: str) -> str:
    """A text with the style sheet's colours in the place of those that stand for them."""
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return _BETWEEN.sub(_mixed, text)


_BETWEEN = re.compile("#0b([0-9a-f]{2})([0-9a-f]{2})")
"""A colour of the scale: behind which of the series, and by how much of the way to the next, %."""


def _mixed(found: re.Match[str]) -> str:
    lower, share = (int(digits, 16) for digits in found.groups())
    return f"color-mix(in oklab, var(--series-{lower + 1}), var(--series-{lower + 2}) {share}%)"


def _dashes(setting: Setting, colour: dict[Setting, str]) -> str:
    """The line style that tells neighbours on the scale apart, where their colours are close."""
    if len(colour) <= len(SERIES):
        return "-"
    return ("-", "--", ":")[list(colour).index(setting) % 3]


def latency_plot(name: str, load: LoadSummary, colour: dict[Setting, str]) -> Plot:
    """Cumulative distributions of three latencies, a line for each budget and threshold."""
    shown = ("time_to_first_token", "time_per_visible_token", "end_to_end")

    def fill(*axes: Axes) -> None:
        for panel, latency in zip(axes, shown, strict=True):
            for row in load.by_budget:
                of = LATENCIES[latency].of
                found = [value for record in row.successes for value in of(record)]
                # A logarithmic axis has no 0, the latency of tokens that arrive at once.
                values = np.maximum(np.sort(found), _SHORTEST)
                if values.size:
                    shares = 100 * np.arange(1, values.size + 1) / values.size
                    panel.step(
                        [values[0], *values],
                        [0, *shares],
                        where="post",
                        color=colour[row.setting],
                        linestyle=_dashes(row.setting, colour),
                        label=row.setting.label,
                    )
            panel.set(title=LATENCIES[latency].title, ylim=(0, 101))
            _scale_by_decades(panel)
        axes[0].set(ylabel="requests within, %")
        _legend_below(axes[-1], LEGEND_COLUMNS)

    return Plot(
        name,
        f"Latency by thought budget · {load.title}",
        "Share of the successful requests within a latency; logarithmic scale, all repeats "
        "together.",
        "Medians. "
        + "; ".join(
            f"{row.setting.label}: " + ", ".join(_medians(row, shown)) for row in load.by_budget
        )
        + ".",
        draw(name, 10, 3.1 + _legend_height(len(load.by_budget), LEGEND_COLUMNS), 3, fill),
    )


def _legend_below(panel: Axes, columns: int) -> None:
    """A legend below the whole figure, if there is anything to explain."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        figure = panel.get_figure(root=True)
        assert figure is not None
        columns = min(len(handles), columns)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _legend_height(number: int, columns: int) -> float:
    """Of a legend below a figure, in inches."""
    return 0.2 * -(-number // columns)


def _scale_by_decades(panel: Axes) -> None:
    """A logarithmic axis of seconds, with a label between decades where there are few of them."""
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    panel.xaxis.set_major_formatter(SECONDS)
    panel.xaxis.set_minor_formatter(NullFormatter())


def _medians(row: Row, latencies: Sequence[str]) -> list[str]:
    medians = ((LATENCIES[name].title, row.figure(f"p50 {name}")) for name in latencies)
    return [f"{title} {duration(median.mean)}" for title, median in medians if median]


def price_plot(name: str, load: LoadSummary, colour: dict[Setting, str]) -> Plot | None:
    """Time per visible token over what was thought for it, and a line whose slope is the price of a
    thought token."""
    price = load.price
    if price is None:
        return None
    rows = {row.setting: row for row in load.by_budget}
    figure = "mean end_to_end" if price.per_answer else "mean time_per_visible_token"
    unit = "answer" if price.per_answer else "visible token"

    def fill(panel: Axes) -> None:
        ends = np.array([0, max(price.thoughts)])
        panel.plot(
            ends,
            (price.base if price.per_answer else price.without_thought)
            + price.without_thought * ends,
            color=MUTED,
            linestyle=":",
            linewidth=1.4,
            label="if it cost as much as a visible token",
        )
        panel.plot(
            ends, price.at(ends), color=MUTED, linestyle="--", linewidth=1.4, label="fitted line"
        )
        for setting, thoughts in zip(price.points, price.thoughts, strict=True):
            times = rows[setting].figure(figure)
            if times:
                panel.errorbar(
                    thoughts,
                    times.mean,
                    times.half_width,
                    marker="o",
                    markersize=7,
                    capsize=4,
                    color=colour[setting],
                    zorder=3,
                )
        panel.set(xlabel=f"thought tokens per {unit}", ylabel=f"mean time per {unit}")
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(SECONDS)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(loc="upper left")
        token = price.without_thought
        in_tokens = panel.secondary_yaxis(
            "right",
            functions=(
                lambda y: np.asarray(y, float) / token,
                lambda y: np.asarray(y, float) * token,
            ),
        )
        in_tokens.set_ylabel("in visible tokens without a thought")
        in_tokens.spines["right"].set_visible(False)

    sentence = price_sentence(price)
    return Plot(
        name,
        f"What a thought token costs · {load.title}",
        sentence,
        sentence,
        draw(name, 5.6, 3.8, 1, fill),
    )


def pareto_plot(name: str, load: LoadSummary, front: Front, colour: dict[Setting, str]) -> Plot:
    """Accuracy against one cost of a visible token; settings that another one beats are pale."""
    best = [point for point in front.points if point.on_front]

    def fill(panel: Axes) -> None:
        panel.step(
            [point.cost for point in best],
            [100 * point.accuracy.value for point in best],
            where="post",
            color=MUTED,
            linestyle="--",
        )
        labels = [_draw_bought(panel, point, colour[point.setting]) for point in front.points]
        panel.set(xlabel=front.cost.title, ylabel="right answers, %", ylim=(-2, 104))
        panel.margins(x=0.3)  # room for labels
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        if front.cost.in_seconds:
            panel.xaxis.set_major_formatter(SECONDS)
        _part_labels(labels)

    return Plot(
        name,
        f"What it buys, by {front.cost.title} · {load.title}",
        (f"{front.sentence} " if front.is_choice else "")
        + "Exactly right answers with 95 % Wilson intervals. The line joins the settings that no "
        "other one beats in both; the pale ones are beaten, or lack repeats.",
        "; ".join(
            f"{p.setting.label}: {p.accuracy.value:.1%} for {front.cost.of(p.cost)}"
            + ("" if p.on_front else ", incomplete" if p.left_out else ", beaten by a cheaper one")
            for p in front.points
        )
        + ".",
        draw(name, 5.6, 3.8, 1, fill),
    )


_LABEL_STEP = 3
"""In points."""


def _part_labels(labels: Sequence[Annotation]) -> None:
    """Move labels down, the highest first, until none overlaps another."""
    placed: list[Bbox] = []
    for label in sorted(labels, key=lambda one: -one.xy[1]):
        box = label.get_window_extent()
        while any(box.overlaps(other) for other in placed):
            across, up = label.xyann
            label.xyann = (across, up - _LABEL_STEP)
            box = label.get_window_extent()
        placed.append(box)


def _draw_bought(panel: Axes, point: Bought, colour: str) -> Annotation:
    """Draw a setting; its label."""
    share, bounds = point.accuracy.value, point.accuracy.interval
    strength = 1.0 if point.on_front else PALE
    panel.errorbar(
        point.cost,
        100 * share,
        [[100 * max(0, share - bounds.low)], [100 * max(0, bounds.high - share)]],
        marker="o",
        markersize=7,
        capsize=4,
        color=colour,
        alpha=strength,
        zorder=3 if point.on_front else 2,
    )
    return panel.annotate(
        point.setting.label,
        (point.cost, 100 * share),
        xytext=(8, -12 if point.on_front else 5),
        textcoords="offset points",
        fontsize=9 if point.on_front else 7,
        alpha=strength,
    )


def throughput_plot(name: str, loads: Sequence[LoadSummary], colour: dict[Setting, str]) -> Plot:
    """Latency against throughput: a point for each load, budget and threshold, a line through the
    loads."""
    lines: dict[Setting, list[tuple[float, float, str]]] = {}
    for load in loads:
        for row in load.by_budget:
            rate = row.figure("visible_tokens_per_s")
            time = row.figure("mean time_per_visible_token")
            if rate and time and not row.is_part:
                lines.setdefault(row.setting, []).append((rate.mean, time.mean, load.load))
    # Many would cover the lines.
    is_below = len(lines) > len(SERIES)
    below = _legend_height(len(lines), NARROW_LEGEND_COLUMNS) if is_below else 0

    def fill(panel: Axes) -> None:
        for setting, points in lines.items():
            points.sort()
            rates, times, _ = zip(*points, strict=True)
            panel.plot(
                rates,
                times,
                marker="o",
                markersize=6,
                color=colour[setting],
                linestyle=_dashes(setting, colour),
                label=setting.label,
            )
        panel.set(xlabel="visible tokens per second", ylabel="mean time per visible token")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(SECONDS)
        if is_below:
            _legend_below(panel, NARROW_LEGEND_COLUMNS)
        elif lines:
            panel.legend()

    return Plot(
        name,
        "Throughput against latency",
        "A point for each load; down and to the right is better. Mixed loads are not in it.",
        "; ".join(
            f"{setting.label}: "
            + ", ".join(f"{rate:.0f}/s at {duration(time)} ({load})" for rate, time, load in points)
            for setting, points in lines.items()
        )
        + ".",
        draw(name, 5.6, 3.8 + below, 1, fill),
    )


def timeline_plot(name: str, cell: Cell) -> Plot:
    """Rates, requests in flight and failures of a cell over time."""
    # Few requests in narrow bins would be single spikes.
    course = timeline(cell, bins=min(80, max(16, len(cell.records) // 5)))
    middles = (course.edges[:-1] + course.edges[1:]) / 2
    failed = sum(record.failure is not None for record in cell.records)

    def fill(rates: Axes, flight: Axes, failures: Axes) -> None:
        rates.step(middles, course.due, where="mid", color=MUTED, linewidth=1, label="due")
        rates.step(middles, course.completed, where="mid", color=ACCENT, label="completed")
        rates.set(title="requests per second")
        flight.fill_between(middles, course.in_flight, color=ACCENT, alpha=0.2, linewidth=0)
        flight.plot(middles, course.in_flight, color=ACCENT, label="sent, not answered")
        _fill_occupancy(flight, cell)
        flight.set(title="requests in flight")
        failures.bar(middles, course.failed, np.diff(course.edges), color=BAD)
        failures.set(title="failures per second")
        if not failed:
            failures.text(0.5, 0.5, "none", color=MUTED, ha="center", transform=failures.transAxes)
        for panel in (rates, flight, failures):
            panel.set_ylim(bottom=0, top=None if panel is not failures or failed else 1)
            panel.set(xlabel="seconds", xlim=(course.edges[0], course.edges[-1]))
            for edges in ((course.edges[0], cell.window[0]), (cell.window[1], course.edges[-1])):
                panel.axvspan(*edges, color=MUTED, alpha=0.12, linewidth=0)
            if panel is not failures:
                panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=3)

    return Plot(
        name,
        f"{budgets_of(cell)} · {cell.load} · repeat {cell.repeat + 1}",
        "Grey: warm-up before and last answers after the measured window."
        + (" In the batch: the server's own gauge, every two seconds." if cell.occupancy else ""),
        f"{len(cell.records)} requests in {course.edges[-1] - course.edges[0]:.0f} s, on average "
        f"{course.in_flight.mean():.1f} in flight, {failed} failed.",
        draw(name, 10, 2.8, 3, fill),
    )


def _fill_occupancy(panel: Axes, cell: Cell) -> None:
    """The requests in the server's batch and, if there ever were any, in its queue."""
    seen = [sample for sample in cell.occupancy if sample.time >= 0]
    times = [sample.time for sample in seen]
    style: Any = {"color": MUTED, "linewidth": 1.2, "drawstyle": "steps-mid"}
    if seen:
        panel.plot(times, [sample.running for sample in seen], label="in the batch", **style)
    if any(sample.waiting for sample in seen):
        waiting = [sample.waiting for sample in seen]
        panel.plot(times, waiting, label="in the server's queue", linestyle=":", **style)


def budgets_of(cell: Cell) -> str:
    """`b = 8`, or the mix, with the threshold."""
    if len(cell.budgets) == 1:
        return Setting(mix_name(cell), cell.threshold, cell.budget_field).label
    return f"mix {mix_name(cell)}{threshold_suffix(cell.threshold)}"
