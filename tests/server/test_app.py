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
        *("/health", "/ping", "/version", "/metrics"),
    } <= document["paths"].keys()
    schemas = document["components"]["schemas"]
    for kind in ("Completion", "Chat"):
        fields = schemas[f"Thinking{kind}Request"]["properties"]
        assert "before each visible token" in fields["thought_budget"]["description"]
        assert {"type": "integer", "minimum": 0} in fields["thought_budget"]["anyOf"]
        assert {"type": "number", "minimum": 0} in fields["thought_threshold"]["anyOf"]
        assert "0 = before every token" in fields["thought_threshold"]["description"]
        for name in ("thought_temperature", "thinking_token_budget", "return_thoughts"):
            assert fields[name]["description"]
        assert "quiet_star" in schemas[f"Thinking{kind}Response"]["required"]
        assert "thoughts" in schemas[f"Thinking{kind}Choice"]["properties"]
    for name, field in schemas["Thought"]["properties"].items():
        assert name == "text" or field["description"]


def test_models_report_the_limits_of_thinking(http: httpx.Client, openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == ["golden"]
    (model,) = http.get("/v1/models").json()["data"]
    assert model["max_model_len"] == 1024
    assert model["quiet_star"] == {
        "max_thought_budget": 16,
        "default_thought_budget": 5,
        "default_thought_temperature": 1.0,
        "default_thought_threshold": 0.0,
        "effort_thresholds": {"low": 0.5, "medium": 0.1, "high": 0.02},
        "gate": "entropy",
        "gate_budgets": None,
        "embedding_mode": "learned",
        "allow_return_thoughts": True,
        "example_prompt": GENERIC_PROMPT,
    }


def test_versions(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": "0.1.0", "vllm": "0.32.0"}


def test_metrics_include_vllms(http: httpx.Client) -> None:
    post(http, "/v1/completions", prompt="t5", max_tokens=1)
    assert "vllm:generation_tokens_total" in http.get("/metrics").text
