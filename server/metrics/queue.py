"""The metrics by which to spread requests over servers, and to choose the number of servers: the
work that waits and the work that runs.
"""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.admission.queue import Admission
from server.engine.engine import Engine

_QUEUED = (
    "Passes that the requests which wait for a place in the batch are still expected to take, if "
    "they get max_tokens. A visible token with a thought of b tokens is b + 1 passes."
)
_RUNNING = (
    "Passes that the requests in the batch are still expected to take, if they get max_tokens."
)


class QueueMetrics(Collector):
    """The engine's backlog at the moment of a scrape."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        """Two gauges."""
        passes = self._engine.backlog.passes(
            self._engine.client.output_processor.request_states, self._admission.remaining_passes
        )
        yield self._gauge("queued_passes", _QUEUED, passes.queued)
        yield self._gauge("running_passes", _RUNNING, passes.running)

    def _gauge(self, name: str, text: str, value: int) -> Metric:
        gauge = GaugeMetricFamily(f"quietstar:{name}", text, labels=("model_name",))
        gauge.add_metric((self._engine.model_names[0],), value)
        return gauge
