"""The endpoints beside completions and chats, and the API's document."""

import re
from typing import Any

import httpx
import pytest
from openai import OpenAI

from server.greeting import GENERIC_PROMPT

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "t13 t4"}]


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_text_becomes_tokens_and_text_again(http: httpx.Client) -> None:
    answer = post(http, "/tokenize", prompt="t5 t9", return_token_strs=True)
    assert answer["token_strs"][-2:] == ["t5", "t9"]
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 1024
    assert post(http, "/detokenize", tokens=answer["tokens"][-2:]) == {"prompt": "t5 t9"}


def test_tokenized_messages_equal_the_prompt_of_a_chat(http: httpx.Client) -> None:
    tokens = post(http, "/tokenize", messages=MESSAGES)["tokens"]
    chat = post(
        http, "/v1/chat/completions", messages=MESSAGES, max_tokens=1, return_token_ids=True
    )
    assert tokens == chat["prompt_token_ids"]


def test_probes(http: httpx.Client) -> None:
    for method, path in (("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")):
        answer = http.request(method, path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_the_page_about_the_api_loads_nothing_from_other_hosts(http: httpx.Client) -> None:
    page = http.get("/docs").raise_for_status().text
    named = re.findall(r"""(?:src|href|url)(?:=|: ?)["']([^"']+)["']""", page)
    assert len(named) >= 3
    for path in named:
        assert path.startswith(("/", "data:")), path
        if path.startswith("/"):
            assert http.get(path).status_code == 200, path


def test_the_document_describes_our_fields(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert {
        *("/v1/completions", "/v1/chat/completions", "/v1/models", "/tokenize", "/detokenize"),
        *("/health", "/ping", "/version", "/load", "/metrics"),
    } <= document["paths"].keys()
    schemas = document["components"]["schemas"]
    for kind in ("Completion", "Chat"):
        fields = schemas[f"Thinking{kind}Request"]["properties"]
        assert "before each visible token" in fields["thought_budget"]["description"]
        assert {"type": "integer", "minimum": 0} in fields["thought_budget"]["anyOf"]
        assert {"type": "number", "minimum": 0} in fields["thought_threshold"]["anyOf"]
        assert "0 = before every token" in fields["thought_threshold"]["description"]
        for name in (
            *("thought_temperature", "thinking_token_budget"),
            *("first_thought", "return_thoughts"),
        ):
            assert fields[name]["description"]
        assert "quiet_star" in schemas[f"Thinking{kind}Response"]["required"]
        assert "thoughts" in schemas[f"Thinking{kind}Choice"]["properties"]
    for name, field in schemas["Thought"]["properties"].items():
        assert name == "text" or field["description"]


def test_models_report_the_limits_of_thinking(http: httpx.Client, openai: OpenAI) -> None:
    names = ["golden", "golden:think-8", "golden/careful"]
    assert [model.id for model in openai.models.list()] == names
    model, *aliases = http.get("/v1/models").json()["data"]
    assert model["max_model_len"] == 1024
    assert model["parent"] is None
    assert model["quiet_star"] == {
        "max_thought_budget": 16,
        "default_thought_budget": 5,
        "default_thought_temperature": 1.0,
        "default_thought_threshold": 0.0,
        "default_thinking_token_budget": None,
        "effort_thresholds": {"low": 0.5, "medium": 0.1, "high": 0.02},
        "gate": "entropy",
        "gate_budgets": None,
        "embedding_mode": "learned",
        "allow_return_thoughts": True,
        "example_prompt": GENERIC_PROMPT,
    }
    # An alias differs in what its requests think by default.
    thinking: list[dict[str, float]] = [{"default_thought_budget": 8}]
    thinking += [{"default_thought_budget": 4, "default_thought_threshold": 0.5}]
    for alias, own in zip(aliases, thinking, strict=True):
        assert alias["quiet_star"] == model["quiet_star"] | own
        assert (alias["parent"], alias["root"]) == ("golden", model["root"])
        assert alias["max_model_len"] == model["max_model_len"]


def test_the_load_is_the_number_of_requests_in_flight(http: httpx.Client) -> None:
    """As vLLM's server says it."""
    body = {"prompt": "t5", "max_tokens": 900, "ignore_eos": True, "stream": True}
    body |= {"thought_budget": 16}  # many seconds on any machine
    wait_until_idle(http)
    with http.stream("POST", "/v1/completions", json=body) as one:
        lines = one.iter_lines()  # dropped, it would close the response
        next(lines)
        assert http.get("/load").json() == {"server_load": 1}
        chat = body | {"messages": MESSAGES, "prompt": None}
        with http.stream("POST", "/v1/chat/completions", json=chat) as other:
            more_lines = other.iter_lines()
            next(more_lines)
            assert http.get("/load").json() == {"server_load": 2}
    wait_until_idle(http)
    assert http.post("/v1/completions", json={"prompt": "t5", "n": 0}).status_code == 400
    assert http.get("/load").json() == {"server_load": 0}


def wait_until_idle(http: httpx.Client) -> None:
    """Until the server has noticed that its clients have left."""
    while http.get("/load").json() != {"server_load": 0}:
        pass  # at most as long as the test may take


def test_versions(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": "0.1.0", "vllm": "0.32.0"}


def test_metrics_include_vllms(http: httpx.Client) -> None:
    post(http, "/v1/completions", prompt="t5", max_tokens=1)
    assert "vllm:generation_tokens_total" in http.get("/metrics").text
