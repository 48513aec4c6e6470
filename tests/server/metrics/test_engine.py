"""The metrics of the engine, with a made-up engine: slow, or dead."""

import asyncio
import math
from typing import Any

import pytest

from quietstar_infer.params import ThoughtLimits
from server.metrics.engine import EngineMetrics

COUNTS: dict[str, Any] = {
    "passes": 5,
    "rows": 9,
    "thinking_rows": 8,
    "thought_tokens": 6,
    "finished": 2,
    "aborted": {"repetition": 3},
    "skipped": 7,
    "drafted": 30,
    "drafts_accepted": 12,
    "weights_at_most": [(-1.0, 0), (0.0, 1), (2.0, 2)],
    "expected_gains_at_most": [(0.01, 5), (0.5, 7), (math.inf, 8)],
    "gain_errors_at_most": [(-0.5, 0), (0.0, 1), (math.inf, 1)],
    "slots": 1,
    "recorded_tokens": 4,
}


class FakeEngine:
    """Replies when the test allows it, or fails."""

    def __init__(self) -> None:
        self.may_reply = asyncio.Event()
        self.failure: Exception | None = None
        # The counts of the replicas beside the first.
        self.replicas: list[dict[str, Any]] = []
        self.asked = 0

    async def fetch(self) -> list[dict[str, Any]]:
        self.asked += 1
        await self.may_reply.wait()
        if self.failure is not None:
            raise self.failure
        counts = COUNTS | {"thought_tokens": 100 * self.asked}
        return [counts, *self.replicas]


def metrics_of(engine: FakeEngine, patience_seconds: float = 0.01) -> EngineMetrics:
    return EngineMetrics(
        engine.fetch, ThoughtLimits(16, 4, default_threshold=0.1), "m", patience_seconds
    )


def samples(metrics: EngineMetrics) -> dict[tuple[str, ...], float]:
    """Values by name and labels, without the model's label."""
    return {
        (sample.name.removeprefix("quietstar:"), *list(sample.labels.values())[1:]): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


async def test_everything_that_the_engine_counts_is_reported() -> None:
    engine = FakeEngine()
    engine.may_reply.set()
    metrics = metrics_of(engine, patience_seconds=60)
    await metrics.refresh()
    told = samples(metrics)
    assert 0 <= told.pop(("engine_counts_age_seconds",)) < 60
    assert told == {
        ("default_thought_budget",): 4,
        ("default_thought_threshold_nats",): 0.1,
        ("max_thought_budget",): 16,
        ("engine_passes_total",): 5,
        ("engine_rows_total",): 9,
        ("engine_thinking_rows_total",): 8,
        ("thought_tokens_total",): 100,
        ("thoughts_finished_total",): 2,
        ("thoughts_skipped_total",): 7,
        ("thought_drafts_total",): 30,
        ("thought_drafts_accepted_total",): 12,
        ("thoughts_aborted_total", "preempted"): 0,
        ("thoughts_aborted_total", "abort"): 0,
        ("thoughts_aborted_total", "stop"): 0,
        ("thoughts_aborted_total", "error"): 0,
        ("thoughts_aborted_total", "repetition"): 3,
        ("mixing_weight_bucket", "-1.0"): 0,
        ("mixing_weight_bucket", "0.0"): 1,
        ("mixing_weight_bucket", "2.0"): 2,
        ("mixing_weight_bucket", "+Inf"): 2,
        ("expected_gain_nats_bucket", "0.01"): 5,
        ("expected_gain_nats_bucket", "0.5"): 7,
        ("expected_gain_nats_bucket", "+Inf"): 8,
        ("measured_minus_expected_gain_nats_bucket", "-0.5"): 0,
        ("measured_minus_expected_gain_nats_bucket", "0.0"): 1,
        ("measured_minus_expected_gain_nats_bucket", "+Inf"): 1,
        ("thoughts_in_progress",): 1,
        ("recorded_thought_tokens",): 4,
    }


async def test_the_counts_of_replicas_are_summed() -> None:
    engine = FakeEngine()
    engine.may_reply.set()
    alone = metrics_of(engine, patience_seconds=60)
    await alone.refresh()
    other = {"thought_tokens": 100, "aborted": {"repetition": 1, "abort": 2}}
    engine.asked, engine.replicas = 0, [COUNTS | other]
    both = metrics_of(engine, patience_seconds=60)
    await both.refresh()

    expected = {name: 2 * value for name, value in samples(alone).items()}
    for name in ("default_thought_budget", "default_thought_threshold_nats", "max_thought_budget"):
        expected[(name,)] /= 2
    expected[("thoughts_aborted_total", "repetition")] = 4
    expected[("thoughts_aborted_total", "abort")] = 2
    told = samples(both)
    del told[("engine_counts_age_seconds",)], expected[("engine_counts_age_seconds",)]
    assert told == expected


async def test_a_slow_engine_is_queried_once_and_reported_as_last_known() -> None:
    engine = FakeEngine()
    metrics = metrics_of(engine)
    await asyncio.gather(*(metrics.refresh() for _ in range(3)))
    await metrics.refresh()
    assert engine.asked == 1
    assert ("thought_tokens_total",) not in samples(metrics)
    engine.may_reply.set()
    await metrics.refresh()
    assert engine.asked == 1
    assert samples(metrics)[("thought_tokens_total",)] == 100
    engine.may_reply.clear()
    await metrics.refresh()
    assert engine.asked == 2
    assert samples(metrics)[("thought_tokens_total",)] == 100


async def test_a_dead_engine_is_reported_as_last_known_with_its_age() -> None:
    engine = FakeEngine()
    engine.may_reply.set()
    metrics = metrics_of(engine, patience_seconds=60)
    await metrics.refresh()
    known = samples(metrics)
    engine.failure = RuntimeError("dead")
    await metrics.refresh()
    told = samples(metrics)
    assert engine.asked == 2
    age = ("engine_counts_age_seconds",)
    assert told.pop(age) > known.pop(age)
    assert told == known


async def test_a_cancelled_scrape_does_not_cancel_the_query() -> None:
    engine = FakeEngine()
    metrics = metrics_of(engine, patience_seconds=60)
    scrape = asyncio.create_task(metrics.refresh())
    await asyncio.sleep(0)
    scrape.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scrape
    engine.may_reply.set()
    await metrics.refresh()
    assert engine.asked == 1
    assert samples(metrics)[("thought_tokens_total",)] == 100
