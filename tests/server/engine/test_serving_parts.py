"""The middleware that vLLM's options ask for."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from server.cli import parse_arguments
from server.engine.serving_parts import add_vllm_middleware
from server.requests.thought_headers import THOUGHT_HEADERS

ORIGIN = "https://page.example"


@pytest.mark.parametrize("header", THOUGHT_HEADERS)
def test_pages_of_allowed_sites_may_send_our_headers(header: str) -> None:
    """Browsers ask beforehand (CORS)."""
    app = FastAPI()
    add_vllm_middleware(app, parse_arguments(["model", "--allowed-origins", f'["{ORIGIN}"]']))
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": f"content-type, {header.lower()}",
    }
    answer = TestClient(app).options("/v1/completions", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert header.lower() in answer.headers["access-control-allow-headers"].lower()
