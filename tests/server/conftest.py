"""One server for most tests, because an engine takes its time to start."""

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.server.processes import GOLDEN, RunningServer, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A server that shows thoughts, of a small random model with words t0 … t63."""
    model = GOLDEN / "engine_greedy_n4" / "checkpoint"
    with running_server(
        model, "--served-model-name", "golden", "--allow-return-thoughts"
    ) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def openai(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
