"""Thinking only where it pays, at the default budget, as a table."""

from typing import Any

from training.evaluations.cost import Cost
from training.evaluations.sweep import Cell, sweep_cells
from training.markdown import markdown_table


def adaptive_table(results: dict[str, Any]) -> str:
    """At the default budget, by threshold: right answers, loss, thoughts and passes."""
    adaptive = results["adaptive"]
    default = Cell(**adaptive["default"])
    cells = sweep_cells((0, default.budget), adaptive["thresholds"])
    return markdown_table(
        ["thinks before a token", *_ADAPTIVE_COLUMNS],
        [[_when(cell, default), *_adaptive_row(adaptive, cell)] for cell in cells],
    )


_ADAPTIVE_COLUMNS = (
    *("tokens thought about, %", "passes per token", "dial, greedy, %", "story, greedy, %"),
    *("dial, sampled, %", "story, sampled, %", "loss, greedy, nats", "loss, sampled, nats"),
)


def _adaptive_row(adaptive: dict[str, Any], cell: Cell) -> list[str]:
    by_thoughts = [
        [adaptive[thoughts][family][cell.key] for family in ("dial", "story")]
        for thoughts in ("greedy", "sampled")
    ]
    greedy, _ = by_thoughts
    cost = sum((Cost(**one["cost"]) for one in greedy), Cost(0))
    return [
        f"{100 * cost.thoughts / cost.tokens:.1f}",
        f"{cost.passes(cell) / cost.tokens:.2f}",
        *(f"{100 * one['accuracy']:.1f}" for found in by_thoughts for one in found),
        *(
            f"{sum(one['nll'] * one['cost']['tokens'] for one in found) / cost.tokens:.4f}"
            for found in by_thoughts
        ),
    ]


def _when(cell: Cell, default: Cell) -> str:
    if not cell.budget:
        return "never (b=0)"
    if not cell.threshold:
        return f"always (b={cell.budget})"
    marked = " (default)" if cell == default else ""
    return f"over {cell.threshold:g} nats{marked}"
