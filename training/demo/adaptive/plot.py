"""The demonstration's first figure: right answers against passes per token."""

from statistics import mean
from typing import Any

from matplotlib.axes import Axes

from training.evaluations.cost import Cost, CostPoint
from training.evaluations.cost_plot import plot_costs
from training.evaluations.sweep import Cell, sweep_cells

DRAWN = (4, 8, 12)
"""The budgets whose thresholds are drawn."""


def passes_plot(results: dict[str, Any], left: Axes, right: Axes) -> None:
    """Right answers against passes per token: thoughts before every token, and only where they
    pay; greedy thoughts, then sampled ones.
    """
    adaptive = results["adaptive"]
    default = Cell(**adaptive["default"])
    for axes, thoughts in ((left, "greedy"), (right, "sampled")):
        points = adaptive_points(adaptive, thoughts)
        plot_costs(axes, [p for p in points if not p.cell.is_gated or p.cell.budget in DRAWN])
        chosen = next(point for point in points if point.cell == default)
        axes.plot(chosen.passes, chosen.value, "k*", markersize=11, label="as shipped", zorder=3)
        axes.set(title=f"{thoughts} thoughts", ylabel="right answers, %", ylim=(0, 103))
        axes.legend(loc="upper center", fontsize="x-small")


def adaptive_points(adaptive: dict[str, Any], thoughts: str) -> list[CostPoint]:
    """Right answers of all families together, in percent, against passes per token, by cell."""
    families = adaptive[thoughts].values()
    points = []
    for cell in sweep_cells(adaptive["budgets"], adaptive["thresholds"]):
        cells = [family[cell.key] for family in families]
        cost = sum((Cost(**one["cost"]) for one in cells), Cost(0))
        value = 100 * mean(one["accuracy"] for one in cells)
        points.append(CostPoint(cell, cost.passes(cell) / cost.tokens, value))
    return points
