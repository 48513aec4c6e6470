"""Which hosts are served, where only this machine can reach the server."""

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from server.middleware.host import HostMiddleware, is_loopback


async def anything(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        *((host, True) for host in ("localhost", "localhost:8000", "LOCALHOST.", "a.localhost:1")),
        *(
            (host, True)
            for host in ("127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:80", "10.0.0.1")
        ),
        *((host, True) for host in ("example.org", "Example.org:443", "")),
        *((host, False) for host in ("evil.example", "evil.example:80", "localhost.evil.example")),
        *((host, False) for host in ("127.0.0.1.evil.example", "notlocalhost", "www.example.org")),
    ],
)
def test_names_of_others_are_refused(host: str, is_served: bool) -> None:
    client = TestClient(HostMiddleware(anything, ["example.org"]), base_url="http://here")
    answer = client.get("/v1/models", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == (200 if is_served else 421)
    if not is_served:
        assert "--allowed-hosts" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)]
    + [(address, False) for address in ("0.0.0.0", "::", "", "10.0.0.1", "example.org")],
)
def test_addresses_of_this_machine_only(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
