"""Chats over HTTP: thoughts as in completions, in another shape."""

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

MESSAGES = [
    {"role": "system", "content": "t5 t9"},
    {"role": "user", "content": "t13 t4"},
]
# What the template makes of them, with the word that an answer begins with.
RENDERED = "<s> t10 t5 t9</s> t11 t13 t4</s> t12"
OURS = {"thought_budget": 2, "return_thoughts": True, "return_token_ids": True}


def chat(http: httpx.Client, **body: Any) -> dict[str, Any]:
    body = {"messages": MESSAGES, "temperature": 0, "ignore_eos": True, "max_tokens": 6} | body
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def chunks(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    body = {"messages": MESSAGES, "ignore_eos": True, "max_tokens": 6, "stream": True} | body
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def thought_of(choice: dict[str, Any]) -> list[list[int]]:
    return [thought["token_ids"] for thought in choice["thoughts"]]


@pytest.mark.parametrize("budget", [0, 3])
def test_a_chat_is_the_completion_of_its_rendered_messages(http: httpx.Client, budget: int) -> None:
    common = {"temperature": 1, "seed": 4, "max_tokens": 9, "ignore_eos": True}
    common |= {"thought_budget": budget, "return_thoughts": True, "return_token_ids": True}
    reply = chat(http, **common)
    whole = {"prompt": RENDERED, "add_special_tokens": False, **common}
    completion = http.post("/v1/completions", json=whole).raise_for_status().json()
    (said,), (completed,) = reply["choices"], completion["choices"]
    assert said["message"]["role"] == "assistant"
    assert said["message"]["content"] == completed["text"]
    assert reply["prompt_token_ids"] == completed["prompt_token_ids"]
    for name in ("token_ids", "finish_reason"):
        assert said[name] == completed[name]
    if budget:
        assert thought_of(said) == thought_of(completed)
    else:
        assert said["thoughts"] == completed["thoughts"] == [None] * 9
    for name in ("usage", "quiet_star"):
        assert reply[name] == completion[name]
    assert reply["usage"]["thought_tokens"] == 9 * budget


def test_streamed_thoughts_come_with_their_tokens(http: httpx.Client) -> None:
    body = {"n": 2, "temperature": 1, "seed": 3, "max_tokens": 8, **OURS}
    usage = {"include_usage": True, "continuous_usage_stats": True}
    whole = chat(http, **body)
    sent = chunks(http, **body, stream_options=usage)
    joined: list[dict[str, Any]] = [
        {"text": "", "token_ids": [], "thoughts": []} for _ in whole["choices"]
    ]
    for chunk in sent[:-1]:
        (choice,) = chunk["choices"]
        # The chunk that says the role has no tokens, so it has no thoughts.
        assert len(choice["thoughts"]) == len(choice.get("token_ids") or [])
        so_far = joined[choice["index"]]
        so_far["text"] += choice["delta"].get("content") or ""
        so_far["token_ids"] += choice.get("token_ids") or []
        so_far["thoughts"] += choice["thoughts"]
        running = chunk["usage"]["thought_tokens"]
        assert running == 2 * chunk["usage"]["completion_tokens"]
    for so_far, choice in zip(joined, whole["choices"], strict=True):
        assert so_far["text"] == choice["message"]["content"]
        assert so_far["token_ids"] == choice["token_ids"]
        assert thought_of(so_far) == thought_of(choice)
    assert [chunk["choices"][0]["delta"].get("role") for chunk in sent[:2]] == ["assistant"] * 2
    counts = {"thoughts", "passes"}
    assert all(chunk["quiet_star"].keys() == counts for chunk in sent[1:])
    assert sent[0]["quiet_star"] | sent[-1]["quiet_star"] == whole["quiet_star"]
    assert sent[-1]["choices"] == []
    stated = {name: value for name, value in whole["usage"].items() if value is not None}
    assert sent[-1]["usage"] == stated


def test_the_token_budget_of_an_answer(http: httpx.Client) -> None:
    answer = chat(http, thinking_token_budget=5, max_tokens=None, max_completion_tokens=4, **OURS)
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["thought_tokens"] == 5
    assert answer["quiet_star"]["thinking_token_budget"] == 5
    first, second, third, fourth = answer["choices"][0]["thoughts"]
    assert [len(thought["token_ids"]) for thought in (first, second, third)] == [2, 2, 1]
    assert fourth is None


def test_the_first_thought_can_be_given(http: httpx.Client) -> None:
    """And be the only one."""
    body = {"max_tokens": 2, "return_thoughts": True, "reasoning_effort": "none"}
    answer = chat(http, first_thought="t20 t41 t5", **body)
    first, second = answer["choices"][0]["thoughts"]
    assert first["token_ids"] == [20, 41, 5]
    assert second is None
    assert answer["usage"]["thought_tokens"] == 3


def test_our_fields_can_be_given_in_vllm_xargs(http: httpx.Client) -> None:
    ours = {"thought_budget": 3, "thought_temperature": 0}
    above, below = chat(http, **ours), chat(http, vllm_xargs=ours)
    assert above["quiet_star"] == below["quiet_star"]
    assert above["choices"] == below["choices"]


def test_log_probabilities_of_answer_and_messages(http: httpx.Client) -> None:
    """Those of the answer equal the thoughts'; those of the messages come with thoughts, too."""
    answer = chat(http, logprobs=True, top_logprobs=2, prompt_logprobs=0, **OURS)
    (choice,) = answer["choices"]
    said = [token["logprob"] for token in choice["logprobs"]["content"]]
    assert said == pytest.approx([t["mixed_logprob"] for t in choice["thoughts"]], abs=1e-4)
    assert all(len(token["top_logprobs"]) == 2 for token in choice["logprobs"]["content"])
    token_ids = answer["prompt_token_ids"]
    first, *scored = answer["prompt_logprobs"]
    assert first is None
    assert len(scored) == len(choice["prompt_thoughts"]) - 1 == len(token_ids) - 1
    for token_id, entry, thought in zip(
        token_ids[1:], scored, choice["prompt_thoughts"][1:], strict=True
    ):
        assert entry[str(token_id)]["logprob"] == pytest.approx(thought["mixed_logprob"], abs=1e-4)
    assert answer["quiet_star"]["prompt_thought_tokens"] == 2 * len(scored)


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_can_begin_the_answer(http: httpx.Client, stream: bool) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "t20 t21"}]
    body = {"messages": begun, "add_generation_prompt": False, "continue_final_message": True}
    body |= {"echo": True, "temperature": 0, **OURS}
    if stream:
        choices = [chunk["choices"][0] for chunk in chunks(http, **body)]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        counts = [len(choice["thoughts"]) for choice in choices]
        assert counts[:2] == [0, 0]
        assert sum(counts) == 6
    else:
        (choice,) = chat(http, **body)["choices"]
        text = choice["message"]["content"]
        assert len(choice["thoughts"]) == 6
    assert text.startswith("t20 t21")


def test_the_official_client(openai: OpenAI) -> None:
    ours = {"thought_budget": 4, "thought_temperature": 0, "ignore_eos": True}
    ask: dict[str, Any] = {
        "model": "golden",
        "messages": MESSAGES,
        "max_completion_tokens": 5,
        "temperature": 0,
        "extra_body": ours,
    }
    answer = openai.chat.completions.create(**ask)
    stream = openai.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    )
    parts = list(stream)
    text = "".join(c.delta.content or "" for part in parts for c in part.choices)
    assert text == answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert parts[-1].usage == answer.usage
    assert answer.usage.completion_tokens_details is None
    assert answer.usage.model_dump()["thought_tokens"] == 20


def test_thoughts_are_returned_only_on_request(http: httpx.Client) -> None:
    assert "thoughts" not in chat(http)["choices"][0]
    assert not any("thoughts" in c for part in chunks(http) for c in part["choices"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
def test_a_chat_without_a_template_is_refused(small_server: RunningServer, path: str) -> None:
    answer = httpx.post(f"{small_server.url}{path}", json={"messages": MESSAGES}, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "this model has no chat template: ask /v1/completions, or start the server "
        "with --chat-template FILE",
        "type": "BadRequestError",
        "param": "messages",
        "code": 400,
    }


@pytest.mark.parametrize(
    ("effort", "settings"),
    [
        ("none", {"thought_budget": 0, "thought_threshold": 0.0, "gate": None}),
        ("low", {"thought_budget": 5, "thought_threshold": 0.5, "gate": "entropy"}),
        ("medium", {"thought_budget": 5, "thought_threshold": 0.1, "gate": "entropy"}),
        ("high", {"thought_budget": 5, "thought_threshold": 0.02, "gate": "entropy"}),
    ],
)
def test_the_official_client_sets_an_effort(
    openai: OpenAI, effort: Any, settings: dict[str, Any]
) -> None:
    messages: Any = MESSAGES
    answer = openai.chat.completions.create(
        model="golden", messages=messages, max_completion_tokens=2, reasoning_effort=effort
    )
    assert settings.items() <= answer.model_dump()["quiet_star"].items()
