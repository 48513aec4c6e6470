"""API keys: where they come from, and which requests need one."""

import hmac
from argparse import Namespace
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from server.errors import StartError
from server.middleware.auth import KeyMiddleware, read_keys


def arguments(
    api_key: list[str | None] | None = None, api_key_file: Path | None = None
) -> Namespace:
    return Namespace(api_key=api_key, api_key_file=api_key_file)


def test_keys_of_all_sources_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of two teams\nfirst\n\n  second  \n")
    environment = {"QUIETSTAR_API_KEYS": "third, fourth", "VLLM_API_KEY": "fifth"}
    keys = read_keys(arguments(["sixth"], file), environment)
    for key in ("first", "second", "third", "fourth", "fifth", "sixth"):
        assert keys.accept(f"Bearer {key}")
        assert keys.accept(f"bearer {key}")
    for key in ("", "#", "FIRST", "# of two teams", "third, fourth"):
        assert not keys.accept(f"Bearer {key}")
    for header in (None, "", "Bearer", "first", "Basic first"):
        assert not keys.accept(header)


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a comparison depends neither on the keys nor on which of them matches."""
    compared: list[int] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        assert len(one) == len(other)
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = read_keys(arguments(["first", "a much longer second one"]), {})
    for key in ("first", "a much longer second one", "x", "", "first" * 1000):
        compared.clear()
        keys.accept(f"Bearer {key}")
        assert compared == [32, 32]


def test_without_keys_the_server_is_open() -> None:
    assert not read_keys(arguments(), {})


@pytest.mark.parametrize(
    ("options", "environment", "where"),
    [
        ([""], {}, "--api-key holds no key"),
        ([None], {}, "--api-key holds no key"),
        (["good", " "], {}, "--api-key holds no key"),
        (None, {"QUIETSTAR_API_KEYS": ""}, "QUIETSTAR_API_KEYS holds no key"),
        (None, {"QUIETSTAR_API_KEYS": " , "}, "QUIETSTAR_API_KEYS holds no key"),
        (["good"], {"VLLM_API_KEY": " "}, "VLLM_API_KEY holds no key"),
    ],
)
def test_what_is_given_without_a_key_does_not_open_the_server(
    options: list[str | None] | None, environment: dict[str, str], where: str
) -> None:
    with pytest.raises(StartError, match=where):
        read_keys(arguments(options), environment)


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbffirst\r\nsecond\r\n")
    keys = read_keys(arguments(api_key_file=file), {})
    assert keys.accept("Bearer first")
    assert keys.accept("Bearer second")


@pytest.mark.parametrize("content", [None, "", "# only a comment\n", b"\xff"])
def test_a_key_file_without_keys_does_not_open_the_server(
    tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StartError, match="--api-key-file"):
        read_keys(arguments(api_key_file=file), {})


async def anything(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        *((path, True) for path in ("/", "/health", "/ping", "/version", "/load", "/metrics")),
        ("/page/a.js", True),
        *(
            (path, False)
            for path in (
                "/v1/completions",
                "/v1/chat/completions",
                "/v1/models",
                "/tokenize",
                "/docs",
            )
        ),
        *((path, False) for path in ("/openapi.json", "/health/more", "/metricsx", "/new", "//")),
    ],
)
def test_paths_need_a_key_unless_listed_as_open(path: str, is_open: bool) -> None:
    keys = read_keys(arguments(["secret"]), {})
    client = TestClient(KeyMiddleware(anything, keys), base_url="http://here")
    answer = client.get(f"http://here{path}")
    assert (answer.status_code == 200) is is_open
    if not is_open:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"]["type"] == "AuthenticationError"
    assert client.get(f"http://here{path}", headers={"Authorization": "Bearer secret"}).is_success
