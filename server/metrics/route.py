"""The route `/metrics`."""

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_fastapi_instrumentator import Instrumentator

from server.admission.queue import Admission
from server.engine.engine import Engine
from server.metrics.engine import EngineMetrics
from server.metrics.queue import QueueMetrics

# Requests of monitoring, not of users.
_NOT_COUNTED = ["/metrics", "/health", "/ping", "/version", "/load"]


def add_metrics(app: FastAPI, engine: Engine, admission: Admission) -> None:
    """Count the application's requests, and serve `/metrics`."""
    Instrumentator(excluded_handlers=_NOT_COUNTED).instrument(app)
    engine_metrics = EngineMetrics(
        engine.thought_metrics, engine.setup.limits, engine.model_names[0]
    )
    # A registry of the application's own around the process's: two applications do not collide, and
    # vLLM, which unregisters the metrics that it takes for its own, does not see ours.
    registry = CollectorRegistry()
    registry.register(REGISTRY)
    registry.register(engine_metrics)
    registry.register(QueueMetrics(engine, admission))

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """vLLM's metrics, and ours about thinking, for Prometheus."""
        await engine_metrics.refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
