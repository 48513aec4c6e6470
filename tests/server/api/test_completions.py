"""Completions over HTTP, most with the official client."""

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.load import error_of
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

PROMPT = "t5 t9 t13"
CONTEXT = 1024
DEFAULT_BUDGET = 5  # the checkpoint does not say: 8 passes ahead


def complete(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/completions", json={"temperature": 0, "ignore_eos": True} | body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def chunks(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    body = {"temperature": 0, "ignore_eos": True, "stream": True} | body
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def thought_tokens(response: dict[str, Any]) -> int:
    assert "completion_tokens_details" not in response["usage"]
    tokens: int = response["usage"]["thought_tokens"]
    return tokens


def text_and_thoughts(choices: list[dict[str, Any]]) -> list[tuple[str, list[list[int] | None]]]:
    """Text and thoughts, which do not depend on the batch; the last digits of mixing weights do."""
    return [
        (choice["text"], [thought and thought["token_ids"] for thought in choice["thoughts"]])
        for choice in choices
    ]


def test_the_official_client_gets_text_and_usage(openai: OpenAI) -> None:
    answer = openai.completions.create(
        model="golden", prompt=PROMPT, max_tokens=7, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
    # The package knows no such field, and makes it an attribute all the same.
    assert answer.usage.model_dump()["thought_tokens"] == 7 * DEFAULT_BUDGET
    assert answer.usage.completion_tokens_details is None
    assert answer.model_dump()["quiet_star"] == {
        "thought_budget": DEFAULT_BUDGET,
        "thought_temperature": 1.0,
        "thought_threshold": 0.0,
        "thinking_token_budget": None,
        "gate": None,
        "thoughts": 7,
        "passes": 7 * (DEFAULT_BUDGET + 1),
    }


def test_the_official_client_streams(openai: OpenAI) -> None:
    ours = {"thought_budget": 2, "thought_temperature": 0, "ignore_eos": True}
    whole = openai.completions.create(
        model="golden", prompt=PROMPT, max_tokens=9, temperature=0, extra_body=ours
    )
    stream = openai.completions.create(
        model="golden",
        prompt=PROMPT,
        max_tokens=9,
        temperature=0,
        extra_body=ours,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts = list(stream)
    text = "".join(choice.text for part in parts for choice in part.choices)
    assert text == whole.choices[0].text
    assert parts[-1].usage == whole.usage


@pytest.mark.parametrize("budget", [0, 1, 5, 16])
def test_response_and_usage_report_the_budget(http: httpx.Client, budget: int) -> None:
    answer = complete(http, prompt=PROMPT, max_tokens=3, thought_budget=budget)
    assert answer["quiet_star"]["thought_budget"] == budget
    assert answer["usage"]["completion_tokens"] == 3
    assert thought_tokens(answer) == 3 * budget


def test_thinking_changes_the_text(http: httpx.Client) -> None:
    said = [
        complete(http, prompt=PROMPT, max_tokens=20, thought_budget=budget, thought_temperature=0)
        for budget in (0, 1, 5)
    ]
    assert len({answer["choices"][0]["text"] for answer in said}) > 1


def test_our_fields_can_be_given_in_vllm_xargs(http: httpx.Client) -> None:
    ours = {"thought_budget": 3, "thought_temperature": 0, "thinking_token_budget": 7}
    common = {"prompt": PROMPT, "max_tokens": 5}
    above = complete(http, **common, **ours)
    below = complete(http, **common, vllm_xargs=ours)
    twice = complete(http, **common, **ours, vllm_xargs={"thought_budget": 3})
    assert above["quiet_star"] == below["quiet_star"] == twice["quiet_star"]
    assert above["quiet_star"]["thinking_token_budget"] == 7
    assert above["choices"] == below["choices"] == twice["choices"]
    assert thought_tokens(above) == thought_tokens(below) == 7


GIVEN = [20, 41, 5, 5]


@pytest.mark.parametrize("budget", [0, 3])
def test_the_first_thought_can_be_given(http: httpx.Client, budget: int) -> None:
    """As words or as tokens; each choice of each prompt has it, whatever the threshold is."""
    body = {"prompt": [PROMPT, "t1"], "n": 2, "temperature": 1, "seed": 3, "max_tokens": 3}
    body |= {"thought_budget": budget, "thought_threshold": 1e9, "return_thoughts": True}
    answer = complete(http, **body, first_thought=GIVEN)
    for choice in answer["choices"]:
        first, *others = choice["thoughts"]
        assert (first["token_ids"], first["text"]) == (GIVEN, "t20 t41 t5 t5")
        assert first["mixing_weight"] is not None
        # Its gate, which is asked in vain, has decided against the others.
        assert [thought and thought["token_ids"] for thought in others] == [
            [] if budget else None
        ] * 2
    assert thought_tokens(answer) == 4 * len(GIVEN)
    assert answer["quiet_star"]["thoughts"] == 4
    passes_of_each = 3 + len(GIVEN) + (1 if budget else 0)
    assert answer["quiet_star"]["passes"] == 4 * passes_of_each
    again = complete(http, **body, first_thought="t20 t41 t5 t5")
    assert text_and_thoughts(again["choices"]) == text_and_thoughts(answer["choices"])


def test_a_given_thought_that_was_sampled_changes_nothing(http: httpx.Client) -> None:
    """In a stream, too; and another one changes the prediction."""
    body = {"prompt": PROMPT, "max_tokens": 4, "thought_budget": 3, "return_thoughts": True}
    sampled = complete(http, **body)
    thought = sampled["choices"][0]["thoughts"][0]["token_ids"]
    given = complete(http, **body, first_thought=thought)
    assert text_and_thoughts(given["choices"]) == text_and_thoughts(sampled["choices"])
    assert given["usage"] == sampled["usage"]
    parts = chunks(http, **body, first_thought=thought)
    streamed = [t["token_ids"] for part in parts for t in part["choices"][0]["thoughts"]]
    assert streamed == [t["token_ids"] for t in sampled["choices"][0]["thoughts"]]
    other = complete(http, **body, first_thought=GIVEN)["choices"][0]["thoughts"][0]
    assert other["base_logprob"] == pytest.approx(
        sampled["choices"][0]["thoughts"][0]["base_logprob"], abs=1e-4
    )
    assert other["mixing_weight"] != sampled["choices"][0]["thoughts"][0]["mixing_weight"]


def test_a_given_thought_counts_against_the_token_budget(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 4, "thought_budget": 3, "thinking_token_budget": 5}
    answer = complete(http, **body, first_thought=GIVEN)
    assert thought_tokens(answer) == 5
    assert answer["quiet_star"]["thoughts"] == 2


def test_each_choice_has_its_own_token_budget(http: httpx.Client) -> None:
    answer = complete(
        http,
        prompt=[PROMPT, "t1"],
        n=2,
        temperature=1,
        max_tokens=4,
        thought_budget=2,
        thinking_token_budget=5,
    )
    assert len(answer["choices"]) == 4
    assert answer["usage"]["completion_tokens"] == 16
    assert thought_tokens(answer) == 4 * 5


def test_prompts_can_be_text_or_token_ids_one_or_many(http: httpx.Client) -> None:
    by_text = complete(http, prompt=PROMPT, max_tokens=5, thought_temperature=0)
    ids = complete(http, prompt=PROMPT, max_tokens=1, return_token_ids=True)
    token_ids = ids["choices"][0]["prompt_token_ids"]
    many = complete(http, prompt=[token_ids, token_ids], max_tokens=5, thought_temperature=0)
    assert [choice["index"] for choice in many["choices"]] == [0, 1]
    assert {choice["text"] for choice in many["choices"]} == {by_text["choices"][0]["text"]}


def test_a_seed_covers_text_and_thoughts(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 10, "temperature": 1, "return_thoughts": True}
    first = complete(http, **body, seed=7)
    again = complete(http, **body, seed=7)
    other = complete(http, **body, seed=8)
    assert text_and_thoughts(first["choices"]) == text_and_thoughts(again["choices"])
    assert text_and_thoughts(first["choices"]) != text_and_thoughts(other["choices"])


def test_logprobs(http: httpx.Client) -> None:
    answer = complete(http, prompt=PROMPT, max_tokens=4, logprobs=2, thought_budget=3)
    logprobs = answer["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == 4
    assert all(len(top) in (2, 3) for top in logprobs["top_logprobs"])
    assert not any("thought" in token for top in logprobs["top_logprobs"] for token in top)


def test_a_prompt_can_be_scored_without_thinking(http: httpx.Client) -> None:
    answer = complete(http, prompt=PROMPT, echo=True, logprobs=1, max_tokens=1, thought_budget=0)
    assert answer["choices"][0]["logprobs"]["token_logprobs"][0] is None
    assert len(answer["choices"][0]["logprobs"]["token_logprobs"]) > 3


def test_each_thought_is_returned_with_its_token(http: httpx.Client) -> None:
    answer = complete(
        http,
        prompt=PROMPT,
        max_tokens=5,
        thought_budget=3,
        thinking_token_budget=7,
        return_thoughts=True,
        return_token_ids=True,
    )
    (choice,) = answer["choices"]
    assert len(choice["token_ids"]) == 5
    *thoughts, fourth, fifth = choice["thoughts"]
    # 7 = 3 + 3 + 1, then spent.
    assert [len(thought["token_ids"]) for thought in thoughts] == [3, 3, 1]
    assert fourth is None
    assert fifth is None
    assert "thoughts_truncated" not in choice
    for thought in thoughts:
        words = [f"t{token}" for token in thought["token_ids"] if token > 2 and token != 7]
        assert all(word in thought["text"] for word in words)
        assert isinstance(thought["mixing_weight"], float)


def test_a_thought_reports_its_gain(http: httpx.Client) -> None:
    """base_logprob is the log-probability at budget 0, mixed_logprob that of the answer."""
    body = {"prompt": PROMPT, "max_tokens": 6, "temperature": 1, "seed": 3, "thought_budget": 2}
    body |= {"return_thoughts": True, "return_token_ids": True, "logprobs": 0}
    (choice,) = complete(http, **body)["choices"]
    logprobs, base = choice["logprobs"]["token_logprobs"], by_token(choice, "base_logprob")
    assert by_token(choice, "mixed_logprob") == pytest.approx(logprobs, abs=1e-4)
    assert base != pytest.approx(logprobs, abs=1e-2)

    streamed: dict[str, list[float]] = {"mixed_logprob": [], "base_logprob": []}
    for chunk in chunks(http, **body):
        for name, values in streamed.items():
            values += by_token(chunk["choices"][0], name)
    assert streamed["mixed_logprob"] == pytest.approx(logprobs, abs=1e-4)
    assert streamed["base_logprob"] == pytest.approx(base, abs=1e-4)

    text = [*choice["prompt_token_ids"], *choice["token_ids"]]
    scored = complete(http, prompt=text, max_tokens=0, echo=True, logprobs=0, thought_budget=0)
    plain = scored["choices"][0]["logprobs"]["token_logprobs"][len(choice["prompt_token_ids"]) :]
    assert base == pytest.approx(plain, abs=1e-4)


def by_token(choice: dict[str, Any], name: str) -> list[float]:
    return [thought[name] for thought in choice["thoughts"]]


def test_thoughts_of_many_prompts_and_choices(http: httpx.Client) -> None:
    body = {
        "prompt": [PROMPT, "t1 t2"],
        "n": 3,
        "temperature": 1,
        "seed": 3,
        "max_tokens": 6,
        "thought_budget": 2,
        "return_thoughts": True,
    }
    whole = complete(http, **body)
    assert [len(choice["thoughts"]) for choice in whole["choices"]] == [6] * 6
    assert len({json.dumps(choice["thoughts"]) for choice in whole["choices"]}) == 6

    streamed: list[dict[str, Any]] = [{"text": "", "thoughts": []} for _ in whole["choices"]]
    for chunk in chunks(http, **body):
        for choice in chunk["choices"]:
            streamed[choice["index"]]["text"] += choice["text"]
            streamed[choice["index"]]["thoughts"] += choice["thoughts"]
    assert text_and_thoughts(streamed) == text_and_thoughts(whole["choices"])


def test_thoughts_are_returned_only_on_request(http: httpx.Client) -> None:
    answer = complete(http, prompt=PROMPT, max_tokens=3, return_thoughts=False)
    assert "thoughts" not in answer["choices"][0]
    silent = complete(http, prompt=PROMPT, max_tokens=3, thought_budget=0, return_thoughts=True)
    assert silent["choices"][0]["thoughts"] == [None] * 3


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_ends_text_and_thoughts_at_the_same_token(
    http: httpx.Client, include: bool
) -> None:
    body = {"prompt": PROMPT, "max_tokens": 20, "thought_temperature": 0, "return_thoughts": True}
    text = complete(http, **body)["choices"][0]["text"]
    stop = text.split()[10]
    answer = complete(
        http, **body, stop=stop, include_stop_str_in_output=include, return_token_ids=True
    )
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert len(choice["thoughts"]) == len(choice["token_ids"]) <= 11
    assert None not in choice["thoughts"]
    assert len(choice["thoughts"]) == answer["usage"]["completion_tokens"]


def test_a_stream_reports_the_budget_first_and_the_usage_last(http: httpx.Client) -> None:
    first, *middle, last = chunks(
        http,
        prompt=PROMPT,
        max_tokens=6,
        thought_budget=2,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    assert first["quiet_star"]["thought_budget"] == 2
    for chunk in [*middle, last]:
        tokens = chunk["usage"]["completion_tokens"]
        assert chunk["quiet_star"] == {"thoughts": tokens, "passes": 3 * tokens}
    running = [thought_tokens(chunk) for chunk in [first, *middle]]
    assert running == [2 * chunk["usage"]["completion_tokens"] for chunk in [first, *middle]]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    assert thought_tokens(last) == 12


def test_a_stream_without_usage_has_none(http: httpx.Client) -> None:
    first, *others = chunks(http, prompt=PROMPT, max_tokens=3)
    assert not any("usage" in chunk for chunk in [first, *others])
    assert "thoughts" not in first["quiet_star"]
    assert not any("quiet_star" in chunk for chunk in others)


@pytest.mark.parametrize("budget", [0, 1, 16])
def test_text_and_last_thought_fill_the_context_exactly(http: httpx.Client, budget: int) -> None:
    reserve = budget + 1 if budget else 0
    prompt = [5] * (CONTEXT - reserve - 3)
    # 16, the default of max_tokens, does not fit: as much as does.
    answer = complete(http, prompt=prompt, thought_budget=budget)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"
    asked = complete(http, prompt=prompt, thought_budget=budget, max_tokens=3)
    assert asked["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("budget", [0, 1, 16])
def test_an_answer_is_as_long_as_the_context_leaves(http: httpx.Client, budget: int) -> None:
    reserve = budget + 1 if budget else 0
    prompt = [5] * (CONTEXT - reserve - 3)
    answer = complete(http, prompt=prompt, thought_budget=budget, max_tokens=100)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("budget", [0, 1, 16])
@pytest.mark.parametrize("max_tokens", [None, 1, 50])
def test_a_prompt_can_be_cut_to_what_the_context_leaves(
    http: httpx.Client, budget: int, max_tokens: int | None
) -> None:
    body = {"prompt": [5] * 2000, "truncate_prompt_tokens": -1, "thought_budget": budget}
    answer = complete(http, **body, max_tokens=max_tokens)
    reserve = budget + 1 if budget else 0
    assert answer["usage"]["prompt_tokens"] == CONTEXT - reserve - 1
    assert answer["usage"]["completion_tokens"] == 1
    short = complete(http, prompt=PROMPT, truncate_prompt_tokens=-1, max_tokens=2)
    assert short["usage"]["prompt_tokens"] == 3


def test_messages_can_be_cut_to_what_the_context_leaves(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "t5 " * 2000}]
    for fields in ({}, {"max_tokens": 5}, {"thought_budget": 0}):
        body = {"messages": messages, "truncate_prompt_tokens": -1, **fields}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 1


def test_more_tokens_than_fit_are_refused(http: httpx.Client) -> None:
    body = {"prompt": [5] * (CONTEXT - 2 - 3), "thought_budget": 1, "min_tokens": 4}
    error = error_of(http.post("/v1/completions", json=body), 400)
    assert error["message"] == "min_tokens is 4, but only 3 tokens fit after the prompt"
    assert error["param"] == "min_tokens"


def test_our_fields_can_be_given_in_the_url(http: httpx.Client) -> None:
    """For clients that cannot send fields of their own."""
    body = {"prompt": PROMPT, "max_tokens": 2, "thought_temperature": 0}
    query = {"thought_budget": "3", "return_thoughts": "true", "unknown": "1"}
    answer = http.post("/v1/completions", params=query, json=body).json()
    assert answer["quiet_star"]["thought_budget"] == 3
    assert [len(thought["token_ids"]) for thought in answer["choices"][0]["thoughts"]] == [3, 3]
    for query, words in [
        ({"thought_budget": "many"}, "thought_budget is 'many'"),
        ({"thought_budgte": "3"}, "query.thought_budgte: did you mean thought_budget?"),
        ({"thought_temperature": "1"}, "1 in the URL: give it once"),
    ]:
        refused = http.post("/v1/completions", params=query, json=body)
        assert refused.status_code == 400
        assert words in refused.json()["error"]["message"]


def test_the_likeliest_answer_is_the_same_every_time(http: httpx.Client) -> None:
    """Its thoughts are sampled, with a seed of their own if the request names none."""
    fields = {"prompt": PROMPT, "thought_budget": 4, "max_tokens": 12, "return_thoughts": True}

    def thoughts(**more: Any) -> Any:
        answer = complete(http, **fields, **more)
        return [thought["token_ids"] for thought in answer["choices"][0]["thoughts"]]

    first = thoughts(temperature=0)
    assert [thoughts(temperature=0) for _ in range(3)] == [first] * 3
    assert thoughts(temperature=0, seed=0) == first
    assert thoughts(temperature=0, seed=1) != first
    assert thoughts(temperature=1) != thoughts(temperature=1)


def test_several_answers_at_temperature_0_differ_by_their_thoughts(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "n": 6, "max_tokens": 6, "thought_budget": 4, "return_thoughts": True}
    answers = text_and_thoughts(complete(http, **body)["choices"])
    assert len({repr(thoughts) for _, thoughts in answers}) == 6
    assert answers == text_and_thoughts(complete(http, **body)["choices"])
    (first,) = text_and_thoughts(complete(http, **body | {"n": 1})["choices"])
    assert first == answers[0]
    streamed = [choice for chunk in chunks(http, **body) for choice in chunk["choices"]]
    for index, (text, _) in enumerate(answers):
        assert "".join(it["text"] for it in streamed if it["index"] == index) == text


SCORED = {"echo": True, "logprobs": 1, "max_tokens": 0}


@pytest.mark.parametrize("fields", [{}, {"thought_threshold": 0.5}, {"n": 2, "temperature": 1}])
@pytest.mark.parametrize("budget", [0, 3])
def test_a_prompt_alone_has_no_completion(
    http: httpx.Client, budget: int, fields: dict[str, Any]
) -> None:
    body = {"prompt": PROMPT, **SCORED, "thought_budget": budget, "return_thoughts": True, **fields}
    answer = complete(http, **body)
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 3
    assert answer["quiet_star"]["thoughts"] == answer["quiet_star"]["passes"] == 0
    for choice in answer["choices"]:
        assert choice["text"] == PROMPT
        assert len(choice["logprobs"]["tokens"]) == 3
        assert choice["thoughts"] == []
        assert len(choice["prompt_thoughts"]) == 3
    *_, last = chunks(http, **body, stream_options={"include_usage": True})
    assert last["usage"]["completion_tokens"] == last["quiet_star"]["passes"] == 0


def test_without_thoughts_those_about_the_prompt_are_null(http: httpx.Client) -> None:
    for body in ({"echo": True, "logprobs": 1}, {"prompt_logprobs": 1}):
        fields = {"prompt": PROMPT, "max_tokens": 2, "return_thoughts": True, "thought_budget": 0}
        (choice,) = complete(http, **fields, **body)["choices"]
        assert choice["prompt_thoughts"] == [None] * 3
        assert choice["thoughts"] == [None] * 2
        assert "thoughts_truncated" not in choice
    first, *_ = chunks(http, **fields, echo=True, logprobs=1)
    assert first["choices"][0]["prompt_thoughts"] == [None] * 3


@pytest.mark.parametrize("budget", [0, 2])
def test_several_scored_answers_stream(http: httpx.Client, budget: int) -> None:
    prompt = [3 + index % 50 for index in range(200)]
    body = {"prompt": prompt, "n": 8, "temperature": 1, "echo": True, "logprobs": 2}
    for _ in range(5):
        found = chunks(http, **body, max_tokens=8, thought_budget=budget)
        assert not [chunk for chunk in found if "error" in chunk]
        for index in range(8):
            parts = [it for chunk in found for it in chunk["choices"] if it["index"] == index]
            assert sum(len(part["logprobs"]["tokens"]) for part in parts) == 208


def test_bad_words_are_bad_within_a_text_too(demo_server: RunningServer) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        fields = {"prompt": "Ann has the dial at 2:", "max_tokens": 40, "thought_budget": 0}
        text = complete(client, **fields)["choices"][0]["text"]
        words = {word for word in text.split() if word.isalpha()}
        assert words
        for word in words:
            blocked = complete(client, **fields, bad_words=[word])["choices"][0]["text"]
            assert word not in blocked.split()
