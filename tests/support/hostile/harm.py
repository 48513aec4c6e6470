"""What a request does to others beside it."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import httpx

from tests.support.hostile.requests import COMPLETIONS, JSON, HostileRequest
from tests.support.load import PROMPT


class Harm(NamedTuple):
    """What a request has done: times in seconds."""

    name: str
    status: int
    seconds: float
    stream_gap: float
    """Longest time between two chunks of a stream beside it."""
    longest_probe: float
    """Longest time until an answer of /health."""

    def __str__(self) -> str:
        return (
            f"{self.name:38} {self.status} {self.seconds:6.2f} s, stream {self.stream_gap:5.2f} s, "
            f"/health {self.longest_probe:5.2f} s"
        )


def harm_done(url: str, requests: Mapping[str, HostileRequest]) -> list[Harm]:
    """Send each request once, beside a stream and a client of /health."""
    rows = []
    with _neighbours(url) as (chunks, probes), httpx.Client(base_url=url, timeout=300) as client:
        for name, (path, body) in requests.items():
            chunks.begin()
            probes.begin()
            start = time.monotonic()
            method = "GET" if path == "/health" else "POST"
            try:
                status = client.request(method, path, content=body, headers=JSON).status_code
            except httpx.TransportError:
                # The server has answered and closed the connection, without receiving the body.
                status = 413
            seconds = time.monotonic() - start
            rows.append(Harm(name, status, seconds, chunks.longest(), probes.longest()))
    return rows


class _Intervals:
    """The longest time between two events since `begin`, the time until now included."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._longest = 0.0

    def begin(self) -> None:
        self._longest = 0.0

    def event(self) -> None:
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now

    def longest(self) -> float:
        return max(self._longest, time.monotonic() - self._last)


@contextmanager
def _neighbours(url: str) -> Iterator[tuple[_Intervals, _Intervals]]:
    """A client that reads streams without end, and one that asks for the server's health."""
    chunks, probes, stop = _Intervals(), _Intervals(), threading.Event()
    stream = {"prompt": PROMPT, "max_tokens": 900, "thought_budget": 0, "ignore_eos": True}

    def read_streams() -> None:
        with httpx.Client(base_url=url, timeout=300) as client:
            while not stop.is_set():
                with client.stream("POST", COMPLETIONS, json=stream | {"stream": True}) as response:
                    for line in response.iter_lines():
                        if line:
                            chunks.event()
                        if stop.is_set():
                            break

    def probe() -> None:
        with httpx.Client(base_url=url, timeout=300) as client:
            while not stop.is_set():
                client.get("/health").raise_for_status()
                probes.event()

    threads = [threading.Thread(target=read_streams), threading.Thread(target=probe)]
    for thread in threads:
        thread.start()
    try:
        yield chunks, probes
    finally:
        stop.set()
        for thread in threads:
            thread.join()
