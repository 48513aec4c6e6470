"""A real browser, and what it requested and reported."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, sync_playwright

_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# For a machine that is busy with an engine or two.
_PATIENCE_MS = 120_000


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Headless Chromium. Without it the test is skipped, but fails in CI."""
    chromium = shutil.which("chromium")
    if chromium is None:
        message = "no Chromium found: install it (on Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_OPTIONS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One tab of a new profile, its requests, and the messages in its console."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def elements(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def set(self, **values: Any) -> None:
        """Fill fields of the form, by name."""
        for name, value in values.items():
            self.page.locator(f"[name={name}]").fill(str(value))

    def never_end(self) -> None:
        """Let answers go on up to `max_tokens`: the page has no setting for `ignore_eos`."""

        def ask_for_more(route: Route) -> None:
            route.continue_(post_data=_body(route.request) | {"ignore_eos": True})

        self.page.route("**/v1/completions", ask_for_more)

    def start(self) -> None:
        """Start a run with the form's settings; does not wait for the answers."""
        self.elements("#run").click()

    def wait_for_end(self) -> None:
        self.elements("#run").wait_for()

    def run(self) -> None:
        self.start()
        self.wait_for_end()

    def pane(self, number: int) -> Locator:
        return self.elements(".pane").nth(number)

    def tokens(self, number: int) -> Locator:
        return self.pane(number).locator(".token")

    def card(self) -> dict[str, str]:
        """The texts of the card, by part."""
        self.elements("#card").wait_for()
        parts = self.elements("#card [data-part]").filter(visible=True).all()
        return {str(part.get_attribute("data-part")): part.inner_text() for part in parts}

    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests for answers, one for each budget."""
        return [body for body in self._bodies() if not _looks_up(body)]

    def looked_up(self) -> list[dict[str, Any]]:
        """Those of the requests about the tokens of an answer that is there."""
        return [body for body in self._bodies() if _looks_up(body)]

    def _bodies(self) -> list[dict[str, Any]]:
        posts = [r for r in self.requests if r.url.endswith("/v1/completions")]
        return [_body(post) for post in posts]

    def expect_refusals(self) -> None:
        """Drop Chromium's messages about answers that are errors: this test provokes them."""
        refused = "Failed to load resource"
        self.complaints = [text for text in self.complaints if not text.startswith(refused)]

    def check(self, origin: str) -> None:
        """No request went to another host, and the console has no messages."""
        assert {urlsplit(request.url).netloc for request in self.requests} == {
            urlsplit(origin).netloc
        }
        assert self.complaints == []


def _looks_up(body: dict[str, Any]) -> bool:
    return (
        "n" in body
        or "first_thought" in body
        or ("return_token_ids" in body and not body.get("stream"))
    )


def _body(request: Request) -> dict[str, Any]:
    body = request.post_data_json
    assert isinstance(body, dict)
    return body


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """The page at `url` in a new, empty profile; `options` are Playwright's for the context."""
    context = browser.new_context(**options)
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    visited = Visit(page)
    page.on("request", lambda request: visited.requests.append(request))
    page.on("pageerror", lambda error: visited.complaints.append(str(error)))
    page.on("console", lambda message: visited.complaints.append(message.text))
    try:
        page.goto(url)
        yield visited
        visited.check(url)
    finally:
        context.close()


class Cable:
    """A connection to a server that can be cut."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections, and take no more."""
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._ends += near, far
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
