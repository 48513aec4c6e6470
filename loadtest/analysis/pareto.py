"""What thinking buys: right answers against what a visible token costs, over all settings."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from loadtest.analysis.intervals import Share
from loadtest.analysis.settings import Setting
from loadtest.analysis.units import duration, three_digits

ONE_POINT = 0.01
"""Of accuracy: a cheaper setting that loses no more than this is recommended."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cost:
    """What a visible token, or an answer, costs: the figure, its title, and its value as text."""

    figure: str
    title: str
    show: Callable[[float], str]
    in_seconds: bool
    unit: str = "visible token"

    def of(self, value: float) -> str:
        """`2.1 passes per visible token`, `12 ms per visible token`, `3 s per answer`."""
        return f"{self.show(value)} per {self.unit}"


BY_PASSES = Cost(
    "passes_per_visible_token",
    "passes per visible token",
    lambda passes: f"{three_digits(passes)} {'pass' if passes == 1 else 'passes'}",
    in_seconds=False,
)
BY_SECONDS = Cost(
    "mean time_per_visible_token", "mean time per visible token", duration, in_seconds=True
)
COSTS = (BY_PASSES, BY_SECONDS)
REASONING_COSTS = (
    Cost(
        "tokens_per_answer",
        "tokens per answer, reasoning included",
        lambda tokens: f"{three_digits(tokens)} tokens",
        in_seconds=False,
        unit="answer",
    ),
    Cost("mean end_to_end", "mean time of an answer", duration, in_seconds=True, unit="answer"),
)
"""Of servers that reason before they answer."""


@dataclass(frozen=True)
class Bought:
    """The accuracy of a setting beside its cost."""

    setting: Setting
    cost: float
    accuracy: Share
    on_front: bool
    """No other setting is as cheap and as accurate, and better in one of the two (Pareto)."""
    left_out: bool = False
    """It is not judged: not every repeat has an answer."""


@dataclass(frozen=True)
class Front:
    """One cost: all settings, the cheapest first; there is at least one. Those that are left out
    are never on the front, the most accurate or recommended."""

    cost: Cost
    points: tuple[Bought, ...]

    @property
    def judged(self) -> list[Bought]:
        """The settings that are not left out."""
        return [point for point in self.points if not point.left_out]

    @property
    def is_choice(self) -> bool:
        """Whether there is more than one setting to choose from."""
        return len(self.judged) > 1

    @property
    def most_accurate(self) -> Bought:
        """The cheapest of those with the best accuracy."""
        return max(self.judged, key=lambda point: point.accuracy.value)

    @property
    def recommended(self) -> Bought:
        """The cheapest within a point of the best accuracy."""
        enough = self.most_accurate.accuracy.value - ONE_POINT - _ROUNDING
        return next(point for point in self.judged if point.accuracy.value >= enough)

    @property
    def sentence(self) -> str:
        """The recommendation in words."""
        chosen, best = self.recommended, self.most_accurate
        text = f"The cheapest setting within 1 point of the best accuracy: {self._describe(chosen)}"
        text += "." if chosen == best else f"; the best is {self._describe(best)}."
        left_out = ", ".join(point.setting.label for point in self.points if point.left_out)
        return f"{text} Left out, because repeats are missing: {left_out}." if left_out else text

    def _describe(self, point: Bought) -> str:
        right = f"{point.accuracy.value:.1%} right"
        return f"{point.setting.label}, {right} for {self.cost.of(point.cost)}"


def front(
    cost: Cost,
    points: Mapping[Setting, tuple[float, Share]],
    left_out: Collection[Setting] = (),
) -> Front:
    """Sort settings by their cost, and mark those that no other one beats."""
    ordered = sorted(points, key=lambda setting: (points[setting][0], -points[setting][1].value))
    best = -1.0
    bought = []
    for setting in ordered:
        value, accuracy = points[setting]
        judged = setting not in left_out
        better = judged and accuracy.value > best
        bought.append(Bought(setting, value, accuracy, on_front=better, left_out=not judged))
        best = accuracy.value if better else best
    return Front(cost, tuple(bought))
