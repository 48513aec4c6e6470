"""Measures against passes per token: always thinking beside thinking only where it pays.

A line per thought budget runs over the thresholds; the broken line is that of always thinking.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from training.evaluations.cost import CostPoint
from training.evaluations.report import SHARES, cost_measure, gain_kept
from training.evaluations.sweep import Cell, sweep_cells

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "quietstar"  # the same plot is the same file

_PASSES = (1, 2, 4, 8, 16, 32)


def draw_costs(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `cost-TASK.svg` for every task, where a threshold decides which thoughts are worth
    it.
    """
    if not any(results["thresholds"]):
        return []
    written = []
    cells = sweep_cells(results["budgets"], results["thresholds"])
    for name, task in results["tasks"].items():
        shows_gain = task["kind"] == "text"
        figure, axes = pyplot.subplots(
            1, 1 + shows_gain, figsize=(5.6 + 4 * shows_gain, 3.6), layout="constrained"
        )
        first, *others = axes if shows_gain else [axes]
        measure = cost_measure(task["kind"])
        plot_costs(first, _points(task, measure, cells))
        first.set(ylabel=f"{measure}, %" if measure in SHARES else f"{measure}, nats per token")
        for other in others:
            _plot_gain_kept(task, cells, other)
        figure.suptitle(f"{name}, {task['items']} items")
        written.append(folder / f"cost-{name}.svg")
        figure.savefig(written[-1], metadata={"Date": None})
        pyplot.close(figure)
    return written


def plot_costs(axes: Axes, points: Sequence[CostPoint]) -> None:
    """Draw all points: those of a budget as a line over the thresholds, those that think before
    every token, or never, as a broken line over the budgets.
    """
    always = [point for point in points if not point.cell.is_gated]
    axes.plot(
        [point.passes for point in always],
        [point.value for point in always],
        color="grey",
        linestyle="--",
        marker="s",
        label="before every token",
    )
    for point in always:
        axes.annotate(
            f"b={point.cell.budget}",
            (point.passes, point.value),
            xytext=(6, -11),
            textcoords="offset points",
            fontsize="x-small",
            color="grey",
        )
    for budget in sorted({point.cell.budget for point in points if point.cell.is_gated}):
        own = [p for p in points if p.cell.is_gated and p.cell.budget == budget]
        axes.plot(
            [point.passes for point in own],
            [point.value for point in own],
            marker="o",
            markersize=4,
            label=f"where it pays, b={budget}",
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(_PASSES)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    longest = max(point.passes for point in points)
    axes.set(xlabel="passes per token", xlim=(0.9, 1.4 * longest))
    axes.legend(fontsize="x-small")


def _points(task: Mapping[str, Any], measure: str, cells: Sequence[Cell]) -> list[CostPoint]:
    scale = 100 if measure in SHARES else 1
    return [
        CostPoint(
            cell,
            task["thinker"][cell.key]["cost"]["passes_per_token"],
            scale * task["thinker"][cell.key][measure]["value"],
        )
        for cell in cells
    ]


def _plot_gain_kept(task: Mapping[str, Any], cells: Sequence[Cell], axes: Axes) -> None:
    """The share of the gain that is kept, by the share of the tokens thought about."""
    for budget in sorted({cell.budget for cell in cells if cell.budget}):
        found = [
            (100 * task["thinker"][cell.key]["cost"]["thought_about"], 100 * kept)
            for cell in cells
            if cell.budget == budget and (kept := gain_kept(task, cell)) is not None
        ]
        if found:
            axes.plot(*zip(*found, strict=True), marker="o", markersize=4, label=f"b={budget}")
    axes.set(xlabel="tokens thought about, %", ylabel="gain kept, %", xlim=(0, 103), ylim=(0, None))
    if axes.lines:
        axes.legend(fontsize="x-small")
