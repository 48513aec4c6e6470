"""Accuracy over HTTP, with a fake server that is right if the thought budget is large enough."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from training.demo.accuracy import held_out
from training.demo.forced_thoughts import Evaluation
from training.demo.served_accuracy import CONCURRENT_REQUESTS, served_accuracy
from training.errors import UsageError

EVALUATION = Evaluation(problems=20, budgets=(0, 4, 12), temperature=1.0)
PROBLEMS = {problem.prompt: problem for problem in held_out("dial", EVALUATION)}
ASKED: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """Has the answers to the dial problems."""

    def do_GET(self) -> None:
        """The list of models."""
        self.reply(200, {"data": [{"id": "oracle"}]})

    def do_POST(self) -> None:
        """One completion; a temperature above 1 is refused."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        ASKED.append(request)
        if request["thought_temperature"] > 1:
            self.reply(400, {"error": "too hot"})
            return
        problem = PROBLEMS[request["prompt"]]
        knows = request["thought_budget"] >= problem.done
        self.reply(200, {"choices": [{"text": problem.answer if knows else " no"}]})

    def reply(self, status: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No log."""


class Server(ThreadingHTTPServer):
    """Accepts as many connections as there are concurrent requests."""

    request_queue_size = CONCURRENT_REQUESTS


@pytest.fixture
def url() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_accuracy_of_a_served_model(url: str) -> None:
    ASKED.clear()
    table = served_accuracy(url, ["dial"], EVALUATION, threshold=0.5)
    done = [problem.done for problem in PROBLEMS.values()]
    expected = {b: sum(d <= b for d in done) / len(done) for b in (0, 4, 12)}
    assert table == {"dial": expected}
    assert expected[0] == 0
    assert expected[12] == 1
    assert len(ASKED) == 60
    assert {request["seed"] for request in ASKED} == set(range(20))
    assert {request["thought_threshold"] for request in ASKED} == {0.5}
    assert all(request["max_tokens"] == 1 and not request["temperature"] for request in ASKED)


def test_a_refusal_is_reported(url: str) -> None:
    with pytest.raises(UsageError, match=r"400.*too hot"):
        served_accuracy(url, ["dial"], Evaluation(problems=1, temperature=2.0), 0.0)


def test_no_server() -> None:
    with pytest.raises(UsageError, match="does not answer"):
        served_accuracy("http://127.0.0.1:9", ["dial"], EVALUATION, 0.0)
