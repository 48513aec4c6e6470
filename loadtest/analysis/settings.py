"""How a request is told to think: what rows, plots and comparisons are sorted by."""

from typing import NamedTuple

from loadtest.records import Cell, threshold_suffix

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Setting(NamedTuple):
    """A thought budget (as in the keys of `Cell.budgets`, or `all` of a mix) and a threshold."""

    budget: str
    threshold: float | None
    """In nats; None = none was sent."""
    field: str | None = None
    """Whose value the budget is, of servers without thought budgets."""

    @property
    def name(self) -> str:
        """`8`, or `8, threshold 0.1`."""
        return self.budget + threshold_suffix(self.threshold)

    @property
    def label(self) -> str:
        """For a legend: `b = 8 at 0.1 nats`."""
        if self.field is not None:
            return f"{self.field} = {self.budget}"
        budget = "no budget" if self.budget == "none" else f"b = {self.budget}"
        return budget if self.threshold is None else f"{budget} at {self.threshold:.12g} nats"

    @property
    def thinking(self) -> tuple[int, float]:
        """Sorts settings from little thinking to much."""
        if self.field is not None:
            return effort_rank(self.budget), 0.0
        budget = int(self.budget) if self.budget.isdigit() else -1  # none, or a mix
        return budget, -(self.threshold or 0.0)


def effort_rank(value: str) -> int:
    """Sorts numbers and the usual efforts; other values stay as they were given."""
    order = {name: rank for rank, name in enumerate(_EFFORTS)}
    return int(value) if value.isdigit() else order.get(value.lower(), 0)


def mix_name(cell: Cell) -> str:
    """The cell's budget, or its mix as on the command line."""
    if len(cell.budgets) == 1:
        return next(iter(cell.budgets))
    return ",".join(f"{budget}:{share:g}" for budget, share in cell.budgets.items())


def setting_name(cell: Cell) -> str:
    """The cell's budget or mix, with its threshold."""
    return mix_name(cell) + threshold_suffix(cell.threshold)
