"""Every field of OpenAI's and vLLM's APIs: it has an effect, or it is refused with a sentence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from server.requests.schemas import ThinkingChatRequest, ThinkingCompletionRequest, ThinkingRequest
from tests.support.scrapes import scrape
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

WORDS = "t5 t9 t13"
MESSAGES = [{"role": "user", "content": WORDS}]
BASE = {"max_tokens": 12, "temperature": 0, "thought_budget": 0, "ignore_eos": True}
# These differ between any two answers.
APART = ("id", "created")


@dataclass(frozen=True)
class Effect:
    """A field's value that changes an answer. `beside`: other fields that it needs for that."""

    value: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


SAMPLED = {"temperature": 1, "seed": 1}
THINKING = {"thought_budget": 3, "thought_temperature": 0}
# One word again and again.
MONOTONOUS = {"allowed_token_ids": [5]}
ONLY_SPECIAL = {"allowed_token_ids": [1, 2], "skip_special_tokens": False}
STREAMING = {"stream": True}

# Fields that completions and chats have in common.
EFFECTS: dict[str, Effect] = {
    "frequency_penalty": Effect(2.0, SAMPLED | {"max_tokens": 60}),
    "presence_penalty": Effect(2.0, SAMPLED | {"max_tokens": 60}),
    "repetition_penalty": Effect(9.0),
    "logit_bias": Effect({"9": 100}),
    "max_tokens": Effect(3),
    "n": Effect(2, SAMPLED),
    "seed": Effect(2, SAMPLED),
    "stop": Effect("t5", MONOTONOUS),
    "stream": Effect(True),
    "stream_options": Effect({"include_usage": True}, STREAMING),
    "temperature": Effect(2.0, {"seed": 1}),
    "top_p": Effect(0.01, SAMPLED),
    "top_k": Effect(1, SAMPLED),
    "min_p": Effect(0.9, SAMPLED),
    "stop_token_ids": Effect([5], MONOTONOUS),
    "include_stop_str_in_output": Effect(True, MONOTONOUS | {"stop": "t5"}),
    "ignore_eos": Effect(False, {"allowed_token_ids": [2]}),
    "min_tokens": Effect(4, {"allowed_token_ids": [2, 3], "ignore_eos": False}),
    "skip_special_tokens": Effect(False, {"allowed_token_ids": [1]}),
    "spaces_between_special_tokens": Effect(False, ONLY_SPECIAL),
    "truncate_prompt_tokens": Effect(2, {"return_token_ids": True}),
    "truncation_side": Effect("right", {"truncate_prompt_tokens": 2, "return_token_ids": True}),
    "allowed_token_ids": Effect([9, 11]),
    "prompt_logprobs": Effect(1),
    "bad_words": Effect(
        ["t5"], MONOTONOUS | {"allowed_token_ids": [5, 6], "logit_bias": {"5": 90}}
    ),
    "response_format": Effect(
        {"type": "structural_tag", "format": {"type": "const_string", "value": "t9"}}
    ),
    "structured_outputs": Effect({"choice": ["t9", "t11"]}),
    "return_token_ids": Effect(True),
    "return_tokens_as_token_ids": Effect(True),
    "vllm_xargs": Effect({"thought_budget": 3}, {"thought_budget": None}),
    "repetition_detection": Effect({"max_pattern_size": 1, "min_count": 3}, MONOTONOUS),
    "stream_interval": Effect(6, STREAMING),
    "thought_budget": Effect(3),
    "thought_temperature": Effect(0, {"thought_budget": 4, "seed": 1, "return_thoughts": True}),
    "thought_threshold": Effect(100.0, THINKING),
    "thinking_token_budget": Effect(4, THINKING),
    "first_thought": Effect("t5 t5 t7", THINKING),
    "return_thoughts": Effect(True, THINKING),
}
OF_COMPLETIONS: dict[str, Effect] = {
    "prompt": Effect("t6 t7"),
    "echo": Effect(True),
    "logprobs": Effect(1),
    "logprob_token_ids": Effect([5, 9], {"logprobs": 1}),
    "return_tokens_as_token_ids": Effect(True, {"logprobs": 1}),
}
OF_CHATS: dict[str, Effect] = {
    "messages": Effect([{"role": "user", "content": "t6 t7"}]),
    "echo": Effect(
        True,
        {
            "messages": [*MESSAGES, {"role": "assistant", "content": "t20"}],
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
    ),
    "logprobs": Effect(True),
    "top_logprobs": Effect(2, {"logprobs": True}),
    "logprob_token_ids": Effect([5, 9], {"logprobs": True}),
    "return_tokens_as_token_ids": Effect(True, {"logprobs": True}),
    "max_completion_tokens": Effect(3),
    "add_generation_prompt": Effect(False, {"return_token_ids": True}),
    "continue_final_message": Effect(
        True, {"add_generation_prompt": False, "return_token_ids": True}
    ),
    "chat_template_kwargs": Effect({"roles": {"user": "t30"}}, {"return_token_ids": True}),
    "return_prompt_text": Effect(True),
    "reasoning_effort": Effect("low", THINKING),
}

# Field: a value, and what the refusal says.
REFUSED: dict[str, tuple[Any, str]] = {
    "model": ("another", "The model `another` does not exist"),
    "use_beam_search": (True, "use_beam_search is not supported, must be false"),
    "watermarking": (True, "this server has no watermark"),
    "length_penalty": (0.5, "length_penalty is not supported: it is a part of beam search"),
    "priority": (3, "priority is 3, but requests are served in the order of their arrival"),
    "routed_experts_prompt_start": (3, "the model has no experts"),
    "return_token_offsets": (True, "only vLLM's own render endpoints know them"),
    "mm_payload": ("none", "mm_payload is not supported: the model takes text only"),
    "return_mm_kwargs": (True, "return_mm_kwargs is not supported: the model takes text only"),
    "kv_transfer_params": ({"a": 1}, "this server transfers no KV caches"),
    "ec_transfer_params": ({"a": 1}, "this server transfers no encoder caches"),
    "best_of": (4, "best_of is not supported: ask for n answers, and choose"),
}
REFUSED_COMPLETIONS: dict[str, tuple[Any, str]] = {
    "suffix": ("t9", "suffix is only supported for models with FIM completion rendering"),
    "prompt_embeds": ("AAAA", "prompt_embeds is not supported: thinking needs a prompt of tokens"),
}
REFUSED_CHATS: dict[str, tuple[Any, str]] = {
    "tools": (
        [{"type": "function", "function": {"name": "f"}}],
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    ),
    "tool_choice": ("required", "`tools` must be set"),
    "chat_template": ("{{ 1 }}", "--trust-request-chat-template is not set"),
    "mm_processor_kwargs": ({"a": 1}, "mm_processor_kwargs are disabled by default"),
    "media_io_kwargs": ({"image": {"a": 1}}, "media_io_kwargs are disabled by default"),
}

# They do nothing to an answer by their nature, or by that of this tokenizer, which adds no tokens,
# and of this template, which does not ask for them. request_id and cache_salt have tests of their
# own.
HARMLESS: dict[str, Any] = {
    "user": "me",
    "session_id": "x",
    "request_id": "y",
    "cache_salt": "z",
    "add_special_tokens": True,
}
HARMLESS_CHATS: dict[str, Any] = {
    "documents": [{"title": "a", "text": "b"}],
    "include_reasoning": False,
    "parallel_tool_calls": False,
}

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
TEXT: dict[str, dict[str, Any]] = {COMPLETIONS: {"prompt": WORDS}, CHATS: {"messages": MESSAGES}}
EFFECTS_AT = {COMPLETIONS: EFFECTS | OF_COMPLETIONS, CHATS: EFFECTS | OF_CHATS}
REFUSED_AT = {COMPLETIONS: REFUSED | REFUSED_COMPLETIONS, CHATS: REFUSED | REFUSED_CHATS}
HARMLESS_AT = {COMPLETIONS: HARMLESS, CHATS: HARMLESS | HARMLESS_CHATS}


def each(at: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(path, name) for path, fields in at.items() for name in fields]


def ask(http: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return http.post(path, json=TEXT[path] | BASE | body)


def answer(http: httpx.Client, path: str, **body: Any) -> Any:
    """The answer, or the chunks of a stream, without what differs between any two answers."""
    response = ask(http, path, **body)
    assert response.status_code == 200, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
        parts = [json.loads(event) for event in events[:-1]]
    else:
        parts = [response.json()]
    for part in parts:
        assert "error" not in part
        for name in APART:
            del part[name]
    return parts


@pytest.mark.parametrize(
    ("request_type", "path"),
    [(ThinkingCompletionRequest, COMPLETIONS), (ThinkingChatRequest, CHATS)],
)
def test_no_field_is_forgotten(request_type: type[ThinkingRequest], path: str) -> None:
    tested = EFFECTS_AT[path].keys() | REFUSED_AT[path].keys() | HARMLESS_AT[path].keys()
    assert tested - {"best_of"} == request_type.model_fields.keys()


@pytest.mark.parametrize(("path", "name"), each(EFFECTS_AT))
def test_a_field_takes_effect(http: httpx.Client, path: str, name: str) -> None:
    effect = EFFECTS_AT[path][name]
    with_it = answer(http, path, **{**effect.beside, name: effect.value})
    assert with_it != answer(http, path, **effect.beside)


@pytest.mark.parametrize(("path", "name"), each(REFUSED_AT))
def test_a_field_is_refused_with_a_sentence(http: httpx.Client, path: str, name: str) -> None:
    value, message = REFUSED_AT[path][name]
    response = ask(http, path, **{name: value})
    assert response.status_code == (404 if name == "model" else 400), response.text
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(("path", "name"), each(HARMLESS_AT))
def test_a_field_changes_nothing(http: httpx.Client, path: str, name: str) -> None:
    value = HARMLESS_AT[path][name]
    assert answer(http, path, **{name: value}) == answer(http, path)


@pytest.mark.parametrize("path", TEXT)
def test_default_values_of_unsupported_fields_are_accepted(http: httpx.Client, path: str) -> None:
    """Many clients send all defaults."""
    so = {"best_of": 1, "n": 1, "length_penalty": 1.0, "use_beam_search": False, "priority": 0}
    nothing = {"kv_transfer_params": None, "logit_bias": None, "user": None, "seed": None}
    assert answer(http, path, **so, **nothing) == answer(http, path)


@pytest.mark.parametrize(
    ("path", "prefix"), [(COMPLETIONS, "cmpl-"), (CHATS, "chatcmpl-")], ids=["text", "chat"]
)
def test_requests_have_the_ids_they_are_given(http: httpx.Client, path: str, prefix: str) -> None:
    assert ask(http, path, request_id="mine").json()["id"] == f"{prefix}mine"
    body = TEXT[path] | BASE | {"request_id": "mine"}
    named = http.post(path, json=body, headers={"X-Request-Id": "yours"})
    assert named.json()["id"] == f"{prefix}yours"
    assert ask(http, path).json()["id"] != ask(http, path).json()["id"]


def test_a_salt_keeps_prompts_apart(http: httpx.Client, server: RunningServer) -> None:
    """The prefix cache is not shared, so that times do not reveal other clients' prompts."""
    prompt = [3 + (11 * position) % 50 for position in range(300)]

    def hits_of(salt: str) -> float:
        before = scrape(server.url)
        ask(http, COMPLETIONS, prompt=prompt, cache_salt=salt).raise_for_status()
        name = "vllm:prefix_cache_hits_total"
        return scrape(server.url).value(name) - before.value(name)

    assert hits_of("one") == 0
    assert hits_of("one") > 0
    assert hits_of("two") == 0
