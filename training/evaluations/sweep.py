"""The cells of a sweep: thought budgets crossed with thought thresholds."""

from collections.abc import Sequence
from typing import NamedTuple


class Cell(NamedTuple):
    """Thoughts of `budget` tokens, before those tokens that they are expected to save more than
    `threshold` nats of; before every token where it is 0.
    """

    budget: int
    threshold: float = 0.0

    @property
    def is_gated(self) -> bool:
        """Whether it is decided at every token anew if it is thought about."""
        return self.budget > 0 and self.threshold > 0

    @property
    def key(self) -> str:
        """Its name in results.json: `12`, or `12@0.1` with a threshold."""
        return f"{self.budget}@{self.threshold!r}" if self.is_gated else str(self.budget)


def drawn_cell(cells: Sequence[Cell]) -> Cell:
    """That of the heat maps: the longest thoughts, in the most places."""
    return max(cells, key=lambda cell: (cell.budget, -cell.threshold))


def sweep_cells(budgets: Sequence[int], thresholds: Sequence[float]) -> tuple[Cell, ...]:
    """All cells, by budget and then by threshold; budget 0 has one."""
    return tuple(
        Cell(budget, threshold)
        for budget in budgets
        for threshold in (thresholds if budget else (0.0,))
    )
