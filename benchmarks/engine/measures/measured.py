"""A line of the table."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.engine.measures.settings import MeasureName


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    `ratios`: one for each repetition. `numerator` and `denominator`: the medians behind them, in
    `unit`, described by `names`. `limit` is the target of the median ratio: at most that much, or
    at least where `at_least`.
    """

    name: MeasureName
    model: str
    case: str
    names: tuple[str, str]
    unit: str
    numerator: float
    denominator: float
    ratios: list[float]
    limit: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit

    def figures(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self) | {"ratio": self.ratio, "is_met": self.is_met}
