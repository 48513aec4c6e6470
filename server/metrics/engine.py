"""`/metrics`, in Prometheus's text format: vLLM's own, and ours about thinking.

Ours come from two places. What requests look like from outside is observed in this process
(`server.request_metrics`). What the engine did is counted in its own process, or processes, and
fetched when somebody asks: see `EngineMetrics`, and `quietstar_infer.vllm_plugin.metrics` for why.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator import Instrumentator

from quietstar_infer.params import ThoughtLimits
from server.engine import Engine

# Prometheus itself gives up after 10 s, unless told otherwise.
PATIENCE_SECONDS = 2.0
# Operations' own requests are not the users'.
_NOT_COUNTED = ["/metrics", "/health", "/ping", "/version"]
# Why a thought is given up; there from the start, so that rate() sees the first.
_ABORT_REASONS = ("preempted", "abort", "stop", "error")
_MODEL = ("model_name",)
_COUNTERS = {
    "engine_passes": (
        "passes",
        "Passes of the engine through the trunk; each takes one token or more of every request in "
        "its batch.",
    ),
    "engine_rows": (
        "rows",
        "Requests in those passes, summed up: the engine's work. Divided by "
        "quietstar:visible_tokens_total it is the passes that a visible token takes.",
    ),
    "engine_thinking_rows": (
        "thinking_rows",
        "Those of quietstar:engine_rows_total that were a pass of a thought: thinking's share of "
        "the work is the quotient of their rates. A thought of b tokens takes b + 1 passes, the "
        "last of which says the visible token.",
    ),
    "thought_tokens": (
        "thought_tokens",
        "Thought tokens sampled, START and END not counted; those of aborted thoughts too, which "
        "no answer's usage reports.",
    ),
    "thoughts_finished": (
        "finished",
        "Thoughts that were mixed into the prediction of a visible token.",
    ),
}


class EngineMetrics(Collector):
    """What the engine has counted, as of its last answer.

    A scrape asks the engine anew and waits a bounded time. An engine that is busy for longer, or
    dead, is reported as last known, and `quietstar:engine_counts_age_seconds` says how old that is.
    It is asked one question at a time, however many scrapes wait for the answer.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, Any]]],
        limits: ThoughtLimits,
        model_name: str,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._fetch = fetch
        self._limits = limits
        self._model = (model_name,)
        self._patience_seconds = patience_seconds
        self._question: asyncio.Task[None] | None = None
        self._latest: Mapping[str, Any] | None = None
        self._answered_at = 0.0

    async def refresh(self) -> None:
        """Ask the engine, and wait for its answer, but not for long."""
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._ask())
        await asyncio.wait([self._question], timeout=self._patience_seconds)

    async def _ask(self) -> None:
        try:
            self._latest = await self._fetch()
        except Exception:
            # A dead engine fails in many ways, all of them reported elsewhere. Here its age tells.
            return
        self._answered_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics, with the last known values."""
        yield self._gauge(
            "default_thought_budget",
            "Thought budget of requests that ask for none.",
            self._limits.default_budget,
        )
        yield self._gauge(
            "max_thought_budget",
            "The largest thought budget that a request may ask for; 0 = thinking is off.",
            self._limits.max_budget,
        )
        if self._latest is not None:
            yield from self._of_engine(self._latest)

    def _of_engine(self, latest: Mapping[str, Any]) -> Iterator[Metric]:
        yield self._gauge(
            "engine_counts_age_seconds",
            "How old the engine's part of these metrics is: about 0, unless the engine is slow to "
            "answer, or dead.",
            time.monotonic() - self._answered_at,
        )
        for name, (key, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"quietstar:{name}", text, labels=_MODEL)
            counter.add_metric(self._model, latest[key])
            yield counter
        yield self._aborted(latest["aborted"])
        yield self._mixing_weights(latest["weights_at_most"], latest["finished"])
        yield self._gauge(
            "thoughts_in_progress",
            "Requests in the middle of a thought at this moment.",
            latest["slots"],
        )
        yield self._gauge(
            "recorded_thought_tokens",
            "Thought tokens kept at this moment for requests that asked to see their thoughts "
            "(return_thoughts) and have not got them yet; --max-recorded-thought-tokens at most.",
            latest["recorded_tokens"],
        )

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        gauge = GaugeMetricFamily(f"quietstar:{name}", text, labels=_MODEL)
        gauge.add_metric(self._model, value)
        return gauge

    def _aborted(self, by_reason: Mapping[str, int]) -> Metric:
        counter = CounterMetricFamily(
            "quietstar:thoughts_aborted",
            "Thoughts given up in the middle, by reason. preempted: their KV memory was needed, "
            "they are thought again. Otherwise their request had ended: abort (its client left, or "
            "a stop string was found), stop (asynchronous scheduling had begun a thought behind "
            "the last token), error.",
            labels=(*_MODEL, "reason"),
        )
        for reason, number in (dict.fromkeys(_ABORT_REASONS, 0) | dict(by_reason)).items():
            counter.add_metric((*self._model, reason), number)
        return counter

    def _mixing_weights(self, at_most: list[tuple[float, int]], total: int) -> Metric:
        histogram = HistogramMetricFamily(
            "quietstar:mixing_weight",
            "How much finished thoughts weighed in the prediction of their visible token: 0 = not "
            "at all, 1 = alone. Below 0 and above 1 the prediction is pushed beyond either. It has "
            "no sum, which negative weights would make fall.",
            labels=_MODEL,
        )
        buckets = [(str(bound), number) for bound, number in at_most]
        histogram.add_metric(self._model, [*buckets, ("+Inf", total)], sum_value=None)
        return histogram


def add_metrics(app: FastAPI, engine: Engine) -> None:
    """Count the application's requests, and serve `/metrics`."""
    Instrumentator(excluded_handlers=_NOT_COUNTED).instrument(app)
    engine_metrics = EngineMetrics(
        engine.thought_metrics, engine.setup.limits, engine.model_names[0]
    )
    # A registry of the application's own around the process's: two applications do not collide,
    # and vLLM, which unregisters what it takes for its own, does not see ours.
    registry = CollectorRegistry()
    registry.register(REGISTRY)
    registry.register(engine_metrics)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """vLLM's metrics, and ours about thinking, for Prometheus."""
        await engine_metrics.refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
