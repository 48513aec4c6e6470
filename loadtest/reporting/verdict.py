"""The answer in one sentence: what a thought token costs, what it buys, which budget to take."""

from loadtest.analysis.pareto import Bought, Front
from loadtest.analysis.price import Price
from loadtest.analysis.summary import LoadSummary
from loadtest.analysis.units import duration


def verdict(load: LoadSummary) -> str | None:
    """None where nothing was compared: neither a price is known, nor is there a choice."""
    front = next((front for front in load.fronts if front.is_choice), None)
    if front is None and load.price is None:
        return None
    unknown = ["what it buys was not measured (--answers)"]
    bought = [_buys(front), _take(front)] if front else unknown
    text = "; ".join([_costs(load.price), *bought])
    return f"{text[0].upper()}{text[1:]}."


def _costs(price: Price | None) -> str:
    if price is None:
        return "what a thought token costs cannot be told from these settings"
    unit = "answer" if price.per_answer else "visible token"
    return (
        f"a thought token costs {duration(price.slope)} per {unit}, as much as "
        f"{price.relative:.2f} of a visible token"
    )


def _least(front: Front) -> Bought:
    """What thinks least."""
    return min(front.judged, key=lambda point: point.setting.thinking)


def _is_chance(front: Front) -> bool:
    """Whether the best may be as good as what thinks least."""
    return front.most_accurate.accuracy.interval.low <= _least(front).accuracy.interval.high


def _buys(front: Front) -> str:
    least, best = _least(front), front.most_accurate
    if _is_chance(front):
        return (
            f"thinking buys no more right answers than chance would: {best.accuracy.value:.1%} at "
            f"most, {least.accuracy.value:.1%} with {least.setting.label}"
        )
    return (
        f"thinking takes right answers from {least.accuracy.value:.1%} ({least.setting.label}) to "
        f"{best.accuracy.value:.1%} ({best.setting.label})"
    )


def _take(front: Front) -> str:
    if _is_chance(front):
        return f"take {_least(front).setting.label} until more requests show otherwise"
    chosen = front.recommended
    return (
        f"take {chosen.setting.label}: {chosen.accuracy.value:.1%} right for "
        f"{front.cost.of(chosen.cost)}, the cheapest within 1 point of the best"
    )
