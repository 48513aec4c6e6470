"""What `demo-passes` measures, made up."""

from typing import Any

from training.evaluations.sweep import Cell


def _family(accuracies: tuple[float, ...]) -> dict[str, Any]:
    """One family of ten tokens, two of them thought about where it is decided."""
    counts = ((0, 0), (10, 40), (2, 8))
    return {
        cell.key: {
            "accuracy": accuracy,
            "nll": 1 - accuracy,
            "cost": {"tokens": 10, "thoughts": thoughts, "thought_tokens": tokens},
        }
        for cell, accuracy, (thoughts, tokens) in zip(CELLS, accuracies, counts, strict=True)
    }


CELLS = (Cell(0), Cell(4), Cell(4, 0.1))
FAMILIES = {"dial": _family((0.0, 1.0, 1.0)), "story": _family((0.2, 0.8, 0.6))}
ADAPTIVE = {
    "default": {"budget": 4, "threshold": 0.1},
    "budgets": [0, 4],
    "thresholds": [0.0, 0.1],
    "greedy": FAMILIES,
    "sampled": FAMILIES,
}
