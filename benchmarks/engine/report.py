"""A table, JSON and a plot of what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.engine.machine import Machine
from benchmarks.engine.measures.measured import Measured
from benchmarks.tables import table

# Raised when a field of the JSON changes its meaning or is removed.
SCHEMA = 1
HEADER = ("measure", "model", "case", "", "against", "ratio", "spread", "to reach", "reached")


def measures_table(measures: Sequence[Measured]) -> str:
    """The table of all ratios."""
    return table(HEADER, [_row(measured) for measured in measures], numbers_from=3)


def _row(measured: Measured) -> tuple[str, ...]:
    sign = "≥" if measured.at_least else "≤"
    above, below = measured.names
    return (
        measured.name,
        measured.model,
        measured.case,
        f"{above} {_number(measured.numerator)} {measured.unit}",
        f"{below} {_number(measured.denominator)} {measured.unit}",
        _number(measured.ratio),
        f"{_number(min(measured.ratios))} – {_number(max(measured.ratios))}",
        f"{sign} {measured.limit:g}",
        "yes" if measured.is_met else "no",
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write_json(
    path: Path, machine: Machine, what: str, results: Sequence[Mapping[str, Any]]
) -> None:
    """Write the machine and all figures, those of single repetitions included."""
    content = {
        "schema": SCHEMA,
        "benchmark": what,
        "machine": asdict(machine),
        "results": results,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_plot(path: Path, machine: Machine, measures: Sequence[Measured]) -> None:
    """Draw how far every ratio is from its target; SVG, PNG or PDF by the file's ending.

    Needs matplotlib (requirements/loadtest.txt).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.42 * len(measures)), layout="constrained")
    axes = figure.subplots()
    for height, measured in enumerate(reversed(measures)):
        shares = [_share(measured, ratio) for ratio in measured.ratios]
        colour = "tab:green" if measured.is_met else "tab:red"
        axes.plot([min(shares), max(shares)], [height, height], color=colour, alpha=0.5)
        axes.plot(_share(measured, measured.ratio), height, "o", color=colour)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    labels = [f"{m.name}: {m.model}, {m.case}" for m in reversed(measures)]
    axes.set_yticks(range(len(measures)), labels, fontsize=8)
    axes.set_xlabel("share of what is allowed (1 = the target; left of it is better)")
    axes.set_title("\n".join(machine.lines()), fontsize=7, loc="left")
    figure.savefig(path)


def _share(measured: Measured, ratio: float) -> float:
    return measured.limit / ratio if measured.at_least else ratio / measured.limit
