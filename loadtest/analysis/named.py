"""All figures by their names, such as `p95 time_per_visible_token` or `visible_tokens_per_s`: those
in summary.csv, in run.json, in `compare` and its tolerances."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from loadtest.analysis.figures import Figures
from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.percentiles import PERCENTILES, Distribution

Unit = Literal["s", "1/s", "share", "ratio", ""]


@dataclass(frozen=True)
class Named:
    """One figure; `read` gives None where it was not measured or the sample does not support it."""

    name: str
    meaning: str
    unit: Unit
    better: Literal["lower", "higher"] | None
    read: Callable[[Figures], float | None]


def _of_latency(name: str, statistic: str) -> Callable[[Figures], float | None]:
    def read(figures: Figures) -> float | None:
        found = figures.latencies.get(name)
        return None if found is None else _statistic(found, statistic)

    return read


def _statistic(found: Distribution, statistic: str) -> float | None:
    return found.mean if statistic == "mean" else found.percentiles.get(statistic)


_COUNTED = (
    Named("requests", "due within the measured window", "", None, lambda f: f.requests),
    Named("succeeded", "of these, those without a failure", "", None, lambda f: f.succeeded),
    Named(
        "failure_share",
        "failed of the requests due; they are in no latency",
        "share",
        "lower",
        lambda f: f.failure_share,
    ),
    Named("due_rate", "requests due per second", "1/s", None, lambda f: f.due_rate),
    Named("sent_rate", "requests sent per second", "1/s", None, lambda f: f.sent_rate),
    Named(
        "completed_rate",
        "successful answers that ended, per second",
        "1/s",
        "higher",
        lambda f: f.completed_rate,
    ),
    Named(
        "visible_tokens_per_s",
        "visible tokens that arrived, of successful requests",
        "1/s",
        "higher",
        lambda f: f.visible_tokens_per_s,
    ),
    Named(
        "thought_tokens_per_s",
        "thought tokens as the server's usage counts them",
        "1/s",
        None,
        lambda f: f.thought_tokens_per_s,
    ),
    Named(
        "passes_per_s",
        "passes of the model, as the server counts them, else from what was really thought",
        "1/s",
        None,
        lambda f: f.passes_per_s,
    ),
    Named(
        "passes_per_visible_token",
        "the same, of whole answers, for each of their visible tokens",
        "ratio",
        "lower",
        lambda f: f.passes_per_visible_token,
    ),
    Named(
        "visible_tokens_per_answer",
        "visible tokens of an answer, on average",
        "ratio",
        None,
        lambda f: f.visible_tokens_per_answer,
    ),
    Named(
        "thought_tokens_per_answer",
        "thought tokens of an answer, on average: by usage, else those that were streamed",
        "ratio",
        "lower",
        lambda f: f.thought_tokens_per_answer,
    ),
    Named(
        "tokens_per_answer",
        "visible and thought tokens of an answer, on average",
        "ratio",
        "lower",
        lambda f: f.tokens_per_answer,
    ),
    Named(
        "cut_thinking_share",
        "answers cut at their length before the first visible token, of those that succeeded",
        "share",
        "lower",
        lambda f: f.cut_thinking_share,
    ),
    Named(
        "thought_share",
        "visible tokens that were thought about, of all",
        "share",
        None,
        lambda f: f.thought_share,
    ),
    Named(
        "goodput",
        "of completed_rate, the answers that kept every service level",
        "1/s",
        "higher",
        lambda f: f.goodput,
    ),
    Named(
        "accuracy",
        "exactly right answers of those expected",
        "share",
        "higher",
        lambda f: f.accuracy.value if f.accuracy else None,
    ),
)
_TIMED = (
    Named(
        f"{statistic} {latency.name}",
        latency.meaning,
        "s",
        "lower",
        _of_latency(latency.name, statistic),
    )
    for latency in LATENCIES.values()
    for statistic in ("mean", *PERCENTILES)
)
NAMED = {figure.name: figure for figure in (*_COUNTED, *_TIMED)}


def named_figures(figures: Figures) -> dict[str, float]:
    """All figures that were measured."""
    values = ((name, figure.read(figures)) for name, figure in NAMED.items())
    return {name: value for name, value in values if value is not None}
