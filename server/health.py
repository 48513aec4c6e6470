"""The routes `/health` and `/ping`."""

from fastapi import FastAPI, Response

from server.api.error_responses import refusal
from server.engine.engine import Engine
from server.engine.pulse import Pulse
from server.errors import Unhealthy
from server.vllm_api import EngineDeadError


def add_health(app: FastAPI, engine: Engine, most_seconds: float) -> None:
    """Serve the probes: 503 where the engine has died, or has not replied for so long (0 = however
    long it does not).
    """
    pulse = Pulse(engine.thought_usage)

    async def health() -> Response:
        """200 while the engine runs; 503, and why, where it has died or hangs."""
        try:
            await engine.client.check_health()
        except EngineDeadError:
            return refusal(Unhealthy("the engine has died"))
        silence = pulse.silence()
        if 0 < most_seconds < silence:
            return refusal(
                Unhealthy(
                    f"the engine has not replied for {silence:.0f} s, and may take {most_seconds:g}"
                )
            )
        return Response()

    for path, methods in (("/health", ["GET"]), ("/ping", ["GET", "POST"])):
        app.add_api_route(path, health, methods=methods, response_class=Response)
