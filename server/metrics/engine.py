"""The metrics that the engine counts in its own processes: passes, thoughts, mixing weights, gains.

Those of several replicas (data parallelism) are summed up. They are fetched at each scrape;
`quietstar_infer.vllm_plugin.metrics` says why they are counted there.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from quietstar_infer.params import ThoughtLimits

# Prometheus itself gives up after 10 s by default.
PATIENCE_SECONDS = 2.0
# Why a thought is given up. All are reported from the start, so that rate() sees the first.
_ABORT_REASONS = ("preempted", "abort", "stop", "error")
_MODEL = ("model_name",)
# Upper bounds of buckets, and how many values were not above each.
_AtMost: TypeAlias = Sequence[tuple[float, int]]
_COUNTERS = {
    "engine_passes": (
        "passes",
        "Passes of the engine through the base model; each processes one token or more of every "
        "request in its batch.",
    ),
    "engine_rows": (
        "rows",
        "Requests in these passes, summed up: the engine's work. Divided by "
        "quietstar:visible_tokens_total it is the number of passes that a visible token takes.",
    ),
    "engine_thinking_rows": (
        "thinking_rows",
        "Those of quietstar:engine_rows_total that were a pass of a thought: the quotient of the "
        "two rates is the share of thinking in the work. A thought of b tokens takes b + 1 passes, "
        "the last of which samples the visible token. Where a gate decides about it, the pass that "
        "it decides in comes before and is not one of them.",
    ),
    "thought_tokens": (
        "thought_tokens",
        "Thought tokens sampled, START and END not counted; includes those of aborted thoughts, "
        "which no response's usage reports.",
    ),
    "thoughts_finished": (
        "finished",
        "Thoughts that were mixed into the prediction of a visible token.",
    ),
    "thought_drafts": (
        "drafted",
        "Thought tokens that were drafted and fed before they were known to be right "
        "(--speculative-thoughts).",
    ),
    "thought_drafts_accepted": (
        "drafts_accepted",
        "Those of quietstar:thought_drafts_total that were right. Each has saved its request a "
        "pass: without drafts, quietstar:engine_rows_total would be higher by this.",
    ),
    "thoughts_skipped": (
        "skipped",
        "Visible tokens that a request with a thought_threshold did not think about, because the "
        "expected gain was not above it. Their share is this of the sum of this and "
        "quietstar:thoughts_finished_total.",
    ),
}


def _summed(replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all replicas: numbers, numbers by reason, and histograms."""
    return {name: _sum([counts[name] for counts in replicas]) for name in replicas[0]}


def _sum(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return dict(sum(map(Counter, values), Counter()))
    if isinstance(first, Sequence):
        # Bounds, the same for all replicas, each with a number.
        return [
            (pairs[0][0], sum(number for _, number in pairs)) for pairs in zip(*values, strict=True)
        ]
    return sum(values)


class EngineMetrics(Collector):
    """The engine's counts, as of its last reply.

    A scrape queries the engine and waits for a bounded time. If the engine is busy for longer, or
    dead, its last known counts are reported, and `quietstar:engine_counts_age_seconds` is their
    age. There is one query at a time, however many scrapes wait for its reply.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
        limits: ThoughtLimits,
        model_name: str,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`fetch`: the counts of each replica."""
        self._fetch = fetch
        self._limits = limits
        self._model = (model_name,)
        self._patience_seconds = patience_seconds
        self._query: asyncio.Task[None] | None = None
        self._latest: Mapping[str, Any] | None = None
        self._replied_at = 0.0

    async def refresh(self) -> None:
        """Query the engine, and wait for its reply up to `patience_seconds`."""
        if self._query is None or self._query.done():
            self._query = asyncio.create_task(self._query_engine())
        await asyncio.wait([self._query], timeout=self._patience_seconds)

    async def _query_engine(self) -> None:
        try:
            self._latest = _summed(await self._fetch())
        except Exception:
            # A dead engine fails in many ways, all reported elsewhere. Here the counts just age.
            return
        self._replied_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """The metric families, with the last known values."""
        yield self._gauge(
            "default_thought_budget",
            "Thought budget of requests that do not set one.",
            self._limits.default_budget,
        )
        yield self._gauge(
            "default_thought_threshold_nats",
            "Thought threshold of requests that do not set one; 0 = they think before every token.",
            self._limits.default_threshold,
        )
        yield self._gauge(
            "max_thought_budget",
            "The largest thought budget that a request may set; 0 = thinking is off.",
            self._limits.max_budget,
        )
        if self._latest is not None:
            yield from self._engine_counts(self._latest)

    def _engine_counts(self, latest: Mapping[str, Any]) -> Iterator[Metric]:
        yield self._gauge(
            "engine_counts_age_seconds",
            "Age of the metrics that come from the engine: about 0, unless the engine is slow to "
            "reply, or dead.",
            time.monotonic() - self._replied_at,
        )
        for name, (key, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"quietstar:{name}", text, labels=_MODEL)
            counter.add_metric(self._model, latest[key])
            yield counter
        yield self._aborted(latest["aborted"])
        yield self._mixing_weights(latest["weights_at_most"], latest["finished"])
        yield self._expected_gains(latest["expected_gains_at_most"])
        yield self._gain_errors(latest["gain_errors_at_most"])
        yield self._gauge(
            "thoughts_in_progress",
            "Requests that are in the middle of a thought now.",
            latest["slots"],
        )
        yield self._gauge(
            "recorded_thought_tokens",
            "Thought tokens kept now for requests that asked to see their thoughts "
            "(return_thoughts) and have not received them yet; at most "
            "--max-recorded-thought-tokens.",
            latest["recorded_tokens"],
        )

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        gauge = GaugeMetricFamily(f"quietstar:{name}", text, labels=_MODEL)
        gauge.add_metric(self._model, value)
        return gauge

    def _aborted(self, by_reason: Mapping[str, int]) -> Metric:
        counter = CounterMetricFamily(
            "quietstar:thoughts_aborted",
            "Thoughts given up in the middle, by reason. preempted: their KV cache was needed; "
            "they start again. Otherwise their request had ended: abort (its client left, or a "
            "stop string was found), stop (asynchronous scheduling had started a thought after "
            "the last token), error.",
            labels=(*_MODEL, "reason"),
        )
        for reason, number in (dict.fromkeys(_ABORT_REASONS, 0) | dict(by_reason)).items():
            counter.add_metric((*self._model, reason), number)
        return counter

    def _mixing_weights(self, at_most: _AtMost, total: int) -> Metric:
        return self._histogram(
            "mixing_weight",
            "Mixing weights of finished thoughts: 0 = the prediction is the base model's, 1 = the "
            "one after the thought alone, below 0 and above 1 beyond either. There is no sum, "
            "because negative weights would make it fall.",
            [*at_most, (math.inf, total)],
        )

    def _expected_gains(self, at_most: _AtMost) -> Metric:
        return self._histogram(
            "expected_gain_nats",
            "How much a thought was expected to save, in nats, at every token at which a request "
            "with a thought_threshold had to decide: above its threshold it thinks. There is no "
            "sum.",
            at_most,
        )

    def _gain_errors(self, at_most: _AtMost) -> Metric:
        return self._histogram(
            "measured_minus_expected_gain_nats",
            "What a thought saved, less what it was expected to, in nats: of the thoughts of "
            "requests that asked to see them (return_thoughts), for which alone it is measured. "
            "What one saves depends on the token sampled; on average it should be about 0. There "
            "is no sum.",
            at_most,
        )

    def _histogram(self, name: str, text: str, at_most: _AtMost) -> Metric:
        """A histogram without a sum; the last bound is infinite."""
        histogram = HistogramMetricFamily(f"quietstar:{name}", text, labels=_MODEL)
        buckets = [
            ("+Inf" if bound == math.inf else str(bound), number) for bound, number in at_most
        ]
        histogram.add_metric(self._model, buckets, sum_value=None)
        return histogram
