"""How a request is told to think: what rows, plots and comparisons are sorted by."""

from typing import NamedTuple

from loadtest.records import Cell, threshold_suffix


class Setting(NamedTuple):
    """A thought budget (as in the keys of `Cell.budgets`, or `all` of a mix) and a threshold."""

    budget: str
    threshold: float | None
    """In nats; None = none was sent."""

    @property
    def name(self) -> str:
        """`8`, or `8, threshold 0.1`."""
        return self.budget + threshold_suffix(self.threshold)

    @property
    def label(self) -> str:
        """For a legend: `b = 8 at 0.1 nats`."""
        budget = "no budget" if self.budget == "none" else f"b = {self.budget}"
        return budget if self.threshold is None else f"{budget} at {self.threshold:.12g} nats"

    @property
    def thinking(self) -> tuple[int, float]:
        """Sorts settings from little thinking to much."""
        return -1 if self.budget == "none" else int(self.budget), -(self.threshold or 0.0)


def mix_name(cell: Cell) -> str:
    """The cell's budget, or its mix as on the command line."""
    if len(cell.budgets) == 1:
        return next(iter(cell.budgets))
    return ",".join(f"{budget}:{share:g}" for budget, share in cell.budgets.items())


def setting_name(cell: Cell) -> str:
    """The cell's budget or mix, with its threshold."""
    return mix_name(cell) + threshold_suffix(cell.threshold)
