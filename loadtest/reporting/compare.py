"""Runs side by side: the first is the baseline. Runs with the same label are repeats of one run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.analysis.intervals import Repeated, difference
from loadtest.analysis.named import NAMED
from loadtest.analysis.summary import Summary
from loadtest.errors import LoadTestError
from loadtest.records import threshold_suffix
from loadtest.reporting.table import with_spread

_COMPARED = (
    "mean time_to_first_token",
    "p95 time_to_first_token",
    "mean time_to_first_reasoning_token",
    "p95 time_to_first_reasoning_token",
    "mean thinking_time",
    "mean time_per_reasoning_token",
    "mean time_per_visible_token",
    "p95 time_per_visible_token",
    "p95 end_to_end",
    "visible_tokens_per_s",
    "goodput",
    "failure_share",
    "passes_per_visible_token",
    "thought_tokens_per_answer",
    "cut_thinking_share",
    "accuracy",
)
TOLERANCE = re.compile(r"(?P<figure>.+?)\s*[=>]\s*(?P<percent>\d+(\.\d+)?)\s*%")


class RowKey(NamedTuple):
    """What rows of two runs have in common."""

    mix: str
    load: str
    budget: str
    threshold: float | None
    """None = none was sent: the server's default, as in the results of older versions."""

    @property
    def name(self) -> str:
        """`budget 8, threshold 0.1, closed:4`."""
        return f"budget {self.budget}{threshold_suffix(self.threshold)}, {self.load}"


@dataclass(frozen=True)
class Tolerance:
    """By how much a figure may be worse than the baseline's."""

    figure: str
    share: float


@dataclass(frozen=True)
class Change:
    """One figure of one row in the baseline and in another run.

    `worse` is the relative change for the worse (of shares, such as failures and accuracy, the
    absolute one: they may be 0). `noise`: both have repeats, and their difference may be chance
    (Welch's 95 % interval includes 0).
    """

    row: RowKey
    figure: str
    label: str
    base: Repeated
    other: Repeated

    @property
    def worse(self) -> float:
        change = self.other.mean - self.base.mean
        if NAMED[self.figure].unit != "share":
            change = change / self.base.mean if self.base.mean else float(change > 0)
        return change if NAMED[self.figure].better == "lower" else -change

    @property
    def noise(self) -> bool:
        if min(len(self.base.values), len(self.other.values)) < 2:
            return False
        bounds = difference(self.base.values, self.other.values)
        return bounds.low <= 0 <= bounds.high

    def breaks(self, tolerance: Tolerance) -> bool:
        """Whether this is a regression beyond the tolerance, and not chance."""
        return self.figure == tolerance.figure and self.worse > tolerance.share and not self.noise


@dataclass(frozen=True)
class Comparison:
    """`labels` in order, the baseline first; figures by row, name and label."""

    labels: tuple[str, ...]
    figures: dict[tuple[RowKey, str], dict[str, Repeated]]

    @property
    def changes(self) -> list[Change]:
        """All figures that the baseline and another run have."""
        baseline, *others = self.labels
        return [
            Change(row, figure, label, found[baseline], found[label])
            for (row, figure), found in self.figures.items()
            for label in others
            if baseline in found and label in found
        ]

    def lost(self, figure: str) -> list[tuple[RowKey, str]]:
        """The rows of which another run lacks a figure that the baseline has, and in what: it did
        not reach the budget, or too few requests with it succeeded, in all or in some repeats."""
        baseline, *others = self.labels
        lost = []
        for (row, name), found in self.figures.items():
            for label in others:
                if name != figure or baseline not in found:
                    continue
                if label not in found:
                    lost.append((row, label))
                elif found[label].missing > 0 == found[baseline].missing:
                    total = found[label].missing + len(found[label].values)
                    lost.append((row, f"{found[label].missing} of {total} repeats of {label}"))
        return lost


def parse_tolerance(text: str) -> Tolerance:
    """`p95 time_per_visible_token=10%`; raises `LoadTestError`."""
    match = TOLERANCE.fullmatch(text.strip())
    if match is None:
        raise LoadTestError(
            f"{text!r} is no tolerance; write one like 'p95 time_per_visible_token=10%'"
        )
    figure = NAMED.get(match["figure"])
    if figure is None or figure.better is None:
        known = ", ".join(name for name, figure in NAMED.items() if figure.better)
        raise LoadTestError(f"{text!r}: {match['figure']!r} is none of {known}")
    return Tolerance(figure.name, float(match["percent"]) / 100)


def compare(summaries: Sequence[Summary], more: Sequence[str] = ()) -> Comparison:
    """Raises `LoadTestError` for runs that have no load, budget and threshold in common."""
    labels = tuple(dict.fromkeys(summary.run.label for summary in summaries))
    if len(labels) < 2:
        raise LoadTestError(
            f"all runs are labelled {labels[0]!r}, which makes them repeats of one: give the "
            "others another one with --labels"
        )
    values: dict[tuple[RowKey, str], dict[str, Repeated]] = {}
    for summary in summaries:
        for row in summary.rows_and_parts:
            for figure in dict.fromkeys((*_COMPARED, *more)):
                found = row.figure(figure)
                if found:
                    key = RowKey(row.mix, row.load, row.budget, row.threshold)
                    by_label = values.setdefault((key, figure), {})
                    label = summary.run.label
                    before = by_label.get(label, Repeated(()))
                    by_label[label] = Repeated(
                        before.values + found.values, before.missing + found.missing
                    )
    in_common = {key: found for key, found in values.items() if labels[0] in found}
    if not any(len(found) > 1 for found in in_common.values()):
        raise LoadTestError(
            "the runs have no load, budget and threshold in common: nothing to compare"
        )
    return Comparison(
        labels,
        {
            key: by_label
            for key, by_label in values.items()
            if len(by_label) > 1 or labels[0] in by_label
        },
    )


def lines(comparison: Comparison) -> list[list[str]]:
    """A table as text, heads first."""
    baseline, *others = comparison.labels
    with_thresholds = any(row.threshold is not None for row, _ in comparison.figures)
    heads = ["budget", *(["threshold"] if with_thresholds else []), "load", "figure", baseline]
    for label in others:
        heads += [label, "change"]
    table = [heads]
    changes = {(c.row, c.figure, c.label): c for c in comparison.changes}
    for (row, figure), found in comparison.figures.items():
        line = [row.budget if row.budget == row.mix else f"{row.budget} of {row.mix}"]
        if with_thresholds:
            line.append("–" if row.threshold is None else f"{row.threshold:.12g}")
        line += [row.load, figure]
        line.append(with_spread(found[baseline], figure) if baseline in found else "–")
        for label in others:
            line.append(with_spread(found[label], figure) if label in found else "–")
            line.append(_change(changes.get((row, figure, label))))
        table.append(line)
    return table


def _change(change: Change | None) -> str:
    if change is None:
        return "–"
    if NAMED[change.figure].unit == "share":
        text = f"{100 * (change.other.mean - change.base.mean):+.1f} points"
    elif change.base.mean:
        text = f"{100 * (change.other.mean / change.base.mean - 1):+.1f} %"
    else:
        text = "from 0"
    return f"{text} (noise)" if change.noise else text


def regressions(comparison: Comparison, tolerances: Sequence[Tolerance]) -> list[str]:
    """What is worse than allowed, or not there to be judged, in words."""
    lost = [
        f"{row.name}: {tolerance.figure} was not measured in {where}"
        for tolerance in tolerances
        for row, where in comparison.lost(tolerance.figure)
    ]
    return lost + [
        f"{change.row.name}: {change.figure} is "
        f"{100 * change.worse:.1f} {'points' if NAMED[change.figure].unit == 'share' else '%'} "
        f"worse in {change.label}, allowed are {100 * tolerance.share:g}"
        for change in comparison.changes
        for tolerance in tolerances
        if change.breaks(tolerance)
    ]
