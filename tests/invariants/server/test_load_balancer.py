"""Real servers behind a real load balancer: what its clients notice when one of them is stopped, or
killed.
"""

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from server.errors import ExitStatus
from tests.support.balancing import Balancer, running_balancer
from tests.support.load import LASTING, eventually, is_idle, served
from tests.support.servers import GOLDEN, RunningServer, running_server

pytestmark = pytest.mark.slow

MODEL = GOLDEN / "engine_greedy_n4" / "checkpoint"
BODY = {"model": "golden", "prompt": "t5 t9", "ignore_eos": True}
SHORT = {**BODY, "max_tokens": 12, "thought_budget": 4}
# Some seconds, where nothing is drafted. `Site.shared` drafts: nothing may depend on how long its
# requests last.
LONG = {**BODY, "max_tokens": 900, "thought_budget": 16}
NUM_CLIENTS = 6


class Site(NamedTuple):
    """`replicated` has two replicas; `shared` is used by other tests, too."""

    balancer: Balancer
    replicated: RunningServer
    single: RunningServer
    shared: RunningServer

    @property
    def servers(self) -> tuple[RunningServer, ...]:
        return self.replicated, self.single, self.shared


@pytest.fixture(scope="module")
def site(server: RunningServer) -> Iterator[Site]:
    """Three servers of one model behind HAProxy."""
    name = ("--served-model-name", "golden")
    with ExitStack() as stack:
        two = ("--data-parallel-size", "2", "--shutdown-timeout", "300")
        replicated = stack.enter_context(running_server(MODEL, *LASTING, *name, *two))
        single = stack.enter_context(running_server(MODEL, *LASTING, *name))
        balancer = stack.enter_context(running_balancer([replicated, single, server]))
        yield Site(balancer, replicated, single, server)


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    """A client of the balancer."""
    with httpx.Client(base_url=site.balancer.url, timeout=120) as client:
        yield client


class Result(NamedTuple):
    """Who has answered, None where a whole answer did not come, and whether the answer is whole."""

    server: str | None
    status: int
    is_whole: bool


def ask(client: httpx.Client, body: dict[str, Any], stream: bool) -> Result:
    """Send a request and read the whole answer."""
    if not stream:
        answer = client.post("/v1/completions", json=body)
        served_by = answer.headers.get("X-Served-By")
        is_whole = answer.status_code == 200 and tokens_of(answer.json()) == body["max_tokens"]
        return Result(served_by, answer.status_code, is_whole)
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        served_by, status = response.headers.get("X-Served-By"), response.status_code
        try:
            lines = [line for line in response.iter_lines() if line]
        except httpx.RemoteProtocolError:
            return Result(served_by, status, is_whole=False)
    return Result(served_by, status, lines[-1] == "data: [DONE]" and "error" not in lines[-2])


def tokens_of(answer: dict[str, Any]) -> int:
    number: int = answer["usage"]["completion_tokens"]
    return number


def served_now(server: RunningServer) -> float:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        return served(client)


def is_idle_at(url: str) -> bool:
    with httpx.Client(base_url=url, timeout=60) as client:
        return is_idle(client)


def test_requests_are_spread(client: httpx.Client) -> None:
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        results = list(pool.map(lambda i: ask(client, SHORT, i % 2 == 0), range(5 * NUM_CLIENTS)))
    assert all(result.is_whole for result in results)
    assert {result.server for result in results} == {"server1", "server2", "server3"}


def test_streams_are_not_buffered_and_a_client_that_leaves_is_noticed(
    client: httpx.Client, site: Site
) -> None:
    with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response:
        lines = response.iter_lines()
        first = next(lines)
        assert json.loads(first.removeprefix("data: "))["choices"][0]["text"]
        # Its first token is here, its last one has not been sampled.
        assert sum(map(served_now, site.servers)) == 1
    # It is aborted: what a server has begun and nobody reads would last for seconds.
    eventually(lambda: all(is_idle_at(each.url) for each in site.servers))


def under_load(
    client: httpx.Client, pool: ThreadPoolExecutor, ended: threading.Event
) -> list[Future[list[Result]]]:
    """Clients that send short requests, one after the other, until `ended` is set."""

    def send(number: int) -> list[Result]:
        results = []
        while not ended.is_set():
            results.append(ask(client, SHORT, stream=number % 2 == 0))
        return results

    return [pool.submit(send, number) for number in range(NUM_CLIENTS)]


def test_a_server_is_drained_under_load_without_a_failed_request(
    client: httpx.Client, site: Site
) -> None:
    """Its replicas finish what they have."""
    ended = threading.Event()
    with ThreadPoolExecutor(NUM_CLIENTS + 3) as pool:
        try:
            # One for each server, by the number of open requests.
            body = {**LONG, "max_tokens": 200}
            running = [pool.submit(ask, client, body, stream) for stream in (True, False, True)]
            eventually(lambda: served_now(site.replicated) >= 1)
            clients = under_load(client, pool, ended)
            assert not site.balancer.command("set server quietstar/server1 state drain").strip()
            site.replicated.process.terminate()
            assert site.replicated.process.wait(300) == ExitStatus.STOPPED
        finally:
            ended.set()
        results = [result for each in clients for result in each.result()]
        results += [each.result() for each in running]
    assert len(results) > NUM_CLIENTS
    assert [result for result in results if not result.is_whole] == []


def test_of_a_killed_server_only_its_own_requests_fail(client: httpx.Client, site: Site) -> None:
    """Last of this site. Each of them with an error: 502, or a stream that is cut off."""
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, client, LONG, stream) for stream in (True, False, True, False)]
        eventually(lambda: served_now(site.single) == 2)
        site.single.process.send_signal(signal.SIGKILL)
        site.single.process.wait(60)
        # At once, while the balancer may not know yet.
        others = [ask(client, SHORT, stream) for stream in (True, False) * 5]
        results = [each.result() for each in asked]
    assert {(result.server, result.is_whole) for result in others} == {("server3", True)}
    kept = [result for result in results if result.is_whole]
    assert [result.server for result in kept] == ["server3"] * 2
    lost = [result for result in results if not result.is_whole]
    assert len(lost) == 2
    # What has no answer yet gets one from the balancer.
    assert all(result.status == 502 or result.server == "server2" for result in lost)
