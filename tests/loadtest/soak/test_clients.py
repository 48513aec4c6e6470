"""The clients of a soak: they find what is wrong with a server, and nothing with a good one."""

import json
from typing import Any

import httpx
import pytest

from loadtest.soak.actions import ActionPlan
from loadtest.soak.clients import SoakClients
from loadtest.soak.tally import ACCEPTED, DIFFERENT, FAILED, LEAKED, Tally

PLAN = ActionPlan("model", max_budget=8, shows_thoughts=True, seed=3)


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("none", set()),
        ("breaks", {FAILED}),
        ("accepts", {ACCEPTED}),
        ("leaks", {LEAKED}),
        ("differs", {DIFFERENT}),
        ("silent", {FAILED}),
    ],
)
async def test_every_fault_of_a_server_is_found(fault: str, kinds: set[str]) -> None:
    """With a server in this process that has one fault at a time."""
    answered = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal answered
        try:
            body = json.loads(request.content)
            is_bad = not is_good(body)
        except (ValueError, TypeError, RecursionError):
            is_bad = True
        answered += 1
        if is_bad and fault != "accepts":
            return httpx.Response(400, json={"error": {"message": "bad"}})
        if fault == "breaks" and answered % 50 == 0:
            return httpx.Response(500, text="broken")
        if is_bad:
            return httpx.Response(200, json=completion({}))
        content = completion(body)
        if fault == "leaks":
            content["choices"][0]["thoughts"] = []
        if fault == "differs" and answered > 100:
            content["choices"][0]["text"] = "another"
        if body.get("stream"):
            end = "" if fault == "silent" else "data: [DONE]\n\n"
            return httpx.Response(200, text=f"data: {json.dumps(content)}\n\n{end}")
        return httpx.Response(200, json=content)

    tally = Tally()
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        clients = SoakClients(http, PLAN, tally)
        await clients.ask_alone()
        await clients.run(clients=3, seconds=0.5, progress=lambda _: None)
    assert tally.answered > 50
    assert set(tally.faults) == kinds
    assert bool(tally.wrongs(10, tolerate_differences=False)) == bool(kinds)
    assert bool(tally.wrongs(10, tolerate_differences=True)) == bool(kinds - {DIFFERENT})


def is_good(body: dict[str, Any]) -> bool:
    """Whether the clients believe that a request is good."""
    known = PLAN.known[0].keys() | {"n", "stream", "return_thoughts", "thinking_token_budget"}
    values = (body["thought_budget"], body["temperature"], body["max_tokens"], body.get("n", 1))
    return (
        body.keys() <= known
        and all(isinstance(value, int) for value in values)
        and 0 <= values[0] <= 8
        and values[1] >= 0
        and values[2] > 0
        and values[3] > 0
        and isinstance(body["prompt"], str)
        and bool(body["prompt"])
    )


def completion(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": f"{body.get('prompt')}"}],
        "usage": {
            "completion_tokens": 1,
            "thought_tokens": body.get("thought_budget", 0),
        },
    }
