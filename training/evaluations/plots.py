"""A plot for each task: its measure over the thought budget, and the base model's.

Where there are several thought thresholds, at the lowest of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from training.evaluations.report import SHARES
from training.evaluations.summary import MEASURES
from training.evaluations.sweep import Cell

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "quietstar"  # the same plot is the same file


def draw_sweeps(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `sweep-TASK.svg` for every task."""
    written = []
    for name, task in results["tasks"].items():
        figure, axes = pyplot.subplots(figsize=(5.6, 3.6), layout="constrained")
        threshold = results["thresholds"][0]
        _sweep(task, [Cell(budget, threshold) for budget in results["budgets"]], axes)
        over = f", thoughts over {threshold:g} nats" if threshold else ""
        axes.set_title(f"{name}, {task['items']} items{over}")
        written.append(folder / f"sweep-{name}.svg")
        figure.savefig(written[-1], metadata={"Date": None})
        pyplot.close(figure)
    return written


def _sweep(task: Mapping[str, Any], cells: Sequence[Cell], axes: Axes) -> None:
    budgets = [cell.budget for cell in cells]
    measures = [m for m in MEASURES[task["kind"]] if m in SHARES] or ["perplexity"]
    for measure in measures:
        scale = 100 if measure in SHARES else 1
        estimates = [task["thinker"][cell.key][measure] for cell in cells]
        values = [scale * estimate["value"] for estimate in estimates]
        below = [scale * max(0.0, e["value"] - e["low"]) for e in estimates]
        above = [scale * max(0.0, e["high"] - e["value"]) for e in estimates]
        (line, *_) = axes.errorbar(
            budgets, values, [below, above], marker="o", capsize=3, label=measure
        )
        if "base" in task:
            value = scale * task["base"]["0"][measure]["value"]
            label = f"{measure}, base model"
            axes.axhline(value, color=line.get_color(), linestyle="--", label=label)
    axes.set(xlabel="thought budget", ylabel="%" if measures[0] in SHARES else measures[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small")
