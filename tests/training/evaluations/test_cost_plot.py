"""Measures against passes per token."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot

from training.evaluations.cost import CostPoint
from training.evaluations.cost_plot import draw_costs, plot_costs
from training.evaluations.sweep import Cell, sweep_cells

POINTS = [
    CostPoint(Cell(0), 1.0, 10.0),
    CostPoint(Cell(4), 5.0, 60.0),
    CostPoint(Cell(4, 0.1), 2.0, 60.0),
    CostPoint(Cell(4, 0.5), 1.5, 40.0),
    CostPoint(Cell(8), 9.0, 90.0),
    CostPoint(Cell(8, 0.1), 3.0, 90.0),
    CostPoint(Cell(8, 0.5), 2.0, 70.0),
]


def test_a_line_per_budget_runs_over_the_thresholds() -> None:
    figure, axes = pyplot.subplots()
    plot_costs(axes, POINTS)
    lines = {str(line.get_label()): np.asarray(line.get_xdata()).tolist() for line in axes.lines}
    assert lines == {
        "before every token": [1.0, 5.0, 9.0],
        "where it pays, b=4": [2.0, 1.5],
        "where it pays, b=8": [3.0, 2.0],
    }
    pyplot.close(figure)


def results(thresholds: list[float], kind: str, measure: str) -> dict[str, Any]:
    thinker = {
        cell.key: {
            measure: {"value": 0.1 * cell.budget},
            "cost": {"passes_per_token": 1.0 + cell.budget, "thought_about": 0.5},
        }
        for cell in sweep_cells((0, 4), thresholds)
    }
    task = {"kind": kind, "items": 3, "thinker": thinker}
    return {"budgets": [0, 4], "thresholds": thresholds, "tasks": {"mine": task}}


def test_a_plot_per_task_where_thresholds_decide(tmp_path: Path) -> None:
    assert draw_costs(results([0.0], "number", "accuracy"), tmp_path) == []
    for kind, measure in (("number", "accuracy"), ("text", "gain")):
        for thresholds in ([0.0, 0.1], [0.1]):
            (path,) = draw_costs(results(thresholds, kind, measure), tmp_path)
            assert path == tmp_path / "cost-mine.svg"
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
