"""From a cell's records to its figures."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtest.analysis.intervals import Share
from loadtest.analysis.latencies import LATENCIES
from loadtest.analysis.levels import Level, all_kept
from loadtest.analysis.percentiles import Distribution, distribution
from loadtest.records import Cell, Failure, Record

ALL = "all"
"""Stands for all budgets of a mix."""
_SHORTEST_WINDOW = 1e-9
"""Seconds of an empty window, so that rates are not divided by 0."""
CUT_SHORT = (Failure.CUT, Failure.UNSENT)


@dataclass(frozen=True)
class Figures:
    """The figures of one cell, or of its requests with one budget.

    Rates are per second of the measured window. A token counts if it arrived within the window, an
    answer if it ended there, whenever its request was due, so that the edges of the window do not
    distort the rate; tokens of failed requests do not count. Latencies are those of requests that
    were due within the window and succeeded.
    """

    requests: int
    succeeded: int
    failures: dict[str, int]
    cut_short: int
    """Due, but with unknown results, because the cell was cut short."""
    seconds: float
    due_rate: float
    sent_rate: float
    completed_rate: float
    visible_tokens_per_s: float
    thought_tokens_per_s: float | None
    """None where the server does not count thought tokens."""
    passes_per_s: float | None
    """A request's passes are taken to be spread evenly over its visible tokens. None where they are
    not known of every request (`Record.passes`)."""
    passes_per_visible_token: float | None
    """Of whole answers."""
    visible_tokens_per_answer: float | None
    """Counted in the stream."""
    thought_tokens_per_answer: float | None
    """None where the server does not count thought tokens."""
    cut_thinking_share: float | None
    """The share of answers that were cut before their first visible token; None where no answer
    shows its reasoning."""
    thought_share: float | None
    """The share of visible tokens that were thought about; None where it is not known."""
    goodput: float | None
    """Those of `completed_rate` that kept every service level: never more than it."""
    accuracy: Share | None
    latencies: dict[str, Distribution]

    @property
    def tokens_per_answer(self) -> float | None:
        """Visible and thought ones; None where the latter are not known."""
        visible, thought = self.visible_tokens_per_answer, self.thought_tokens_per_answer
        return None if visible is None or thought is None else visible + thought

    @property
    def failure_share(self) -> float:
        return 1 - self.succeeded / self.requests if self.requests else 0.0


def budget_name(budget: int | None) -> str:
    """As in the keys of `Cell.budgets`."""
    return "none" if budget is None else str(budget)


def has_budget(cell: Cell, record: Record, budget: str) -> bool:
    """Whether a request of a cell counts for a budget, or for `ALL`."""
    return cell.budget_field is not None or budget in (ALL, budget_name(record.budget))


def measured(records: Iterable[Record]) -> list[Record]:
    """Without warm-up and cool-down."""
    return [record for record in records if not record.warmup]


def figures(cell: Cell, levels: Sequence[Level] = (), budget: str = ALL) -> Figures:
    """The figures of a cell, or of its requests with one budget."""
    start, end = cell.window
    # A cell that was cut short during its warm-up has an empty window, and rates of 0.
    seconds = max(end - start, _SHORTEST_WINDOW)
    records = [record for record in cell.records if has_budget(cell, record, budget)]
    cut = [r for r in measured(records) if r.failure in CUT_SHORT]
    due = [r for r in measured(records) if r.failure not in CUT_SHORT]
    good = [record for record in due if record.failure is None]
    completed = [r for r in records if r.failure is None and start <= (r.finished or 0.0) < end]
    kept = sum(all_kept(levels, record) for record in completed)
    tokens = [
        (record, sum(start <= time < end for time in record.token_times))
        for record in records
        if record.failure is None
    ]
    return Figures(
        requests=len(due),
        succeeded=len(good),
        failures=dict(Counter(r.failure.value for r in due if r.failure is not None).most_common()),
        cut_short=len(cut),
        seconds=seconds,
        due_rate=len(due) / seconds,
        sent_rate=sum(r.sent is not None and start <= r.sent < end for r in records) / seconds,
        completed_rate=len(completed) / seconds,
        visible_tokens_per_s=sum(count for _, count in tokens) / seconds,
        thought_tokens_per_s=_thought_tokens(tokens, seconds, cell.window),
        passes_per_s=_passes(tokens, seconds),
        visible_tokens_per_answer=_mean([r.visible_tokens for r in good]),
        thought_tokens_per_answer=_mean(_thought_counts(good)),
        cut_thinking_share=_cut_thinking_share(good),
        passes_per_visible_token=_per_visible_token(good, [r.passes for r in good]),
        thought_share=_per_visible_token(good, [r.thoughts for r in good]),
        goodput=kept / seconds if levels else None,
        accuracy=_accuracy(good),
        latencies={
            name: found
            for name, latency in LATENCIES.items()
            if (found := distribution(value for r in good for value in latency.of(r)))
        },
    )


def _thought_counts(records: Sequence[Record]) -> list[int]:
    """Of each; empty where the server counts none. One that streams reasoning may say nothing about
    an answer without any."""
    counts = [record.thought_tokens for record in records]
    if None in counts and not any(record.reasoning_times for record in records):
        return []
    return [count or 0 for count in counts]


def _mean(values: Sequence[int]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _cut_thinking_share(good: Sequence[Record]) -> float | None:
    if not any(record.reasoning_times or record.ended_thinking for record in good):
        return None
    return sum(record.ended_thinking for record in good) / len(good)


def _thought_tokens(
    tokens: list[tuple[Record, int]], seconds: float, window: tuple[float, float]
) -> float | None:
    """Those that were streamed within the window. Others are taken to be spread evenly over the
    request's visible tokens."""
    if tokens and not _thought_counts([record for record, _ in tokens]):
        return None
    start, end = window
    return (
        math.fsum(
            sum(start <= time < end for time in record.reasoning_times)
            if record.reasoning_times
            else _spread(record, count, record.thought_tokens)
            for record, count in tokens
        )
        / seconds
    )


def _spread(record: Record, count: int, total: int | None) -> float:
    """The part of a request's total that falls on `count` of its visible tokens."""
    return count * (total or 0) / record.visible_tokens if count else 0.0


def _passes(tokens: list[tuple[Record, int]], seconds: float) -> float | None:
    if any(record.passes is None for record, _ in tokens):
        return None
    passes = (_spread(record, count, record.passes) for record, count in tokens)
    return math.fsum(passes) / seconds


def _per_visible_token(good: list[Record], counts: list[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    visible = sum(record.visible_tokens for record in good)
    return sum(known) / visible if visible and len(known) == len(counts) else None


def _accuracy(good: list[Record]) -> Share | None:
    answers = [record.correct for record in good if record.correct is not None]
    return Share(sum(answers), len(answers)) if answers else None
