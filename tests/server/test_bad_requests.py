"""Each bad request is a 400 that says what is allowed, and disturbs nobody."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai as openai_package
import pytest
from openai import OpenAI

from tests.server.processes import DEMO, running_server

START_ID, END_ID = 64, 65
VOCAB_SIZE = 66
OUR_FIELDS = "thought_budget, thought_temperature, thinking_token_budget, return_thoughts"
GOOD = {"prompt": "t5 t9", "max_tokens": 4}
SCORING = {"echo": True, "logprobs": 1}

# Name: what makes a good request bad, the parameter at fault, what the message must say.
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "misspelt budget": (
        {"thought_buget": 3},
        "thought_buget",
        "unknown field thought_buget: did you mean thought_budget?",
    ),
    "misspelt temperature": (
        {"thougt_temperature": 1},
        "thougt_temperature",
        "did you mean thought_temperature?",
    ),
    "misspelt flag": ({"return_thought": True}, "return_thought", "did you mean return_thoughts?"),
    "another's field": (
        {"thinking": {}},
        "thinking",
        f"The fields about thoughts are {OUR_FIELDS}",
    ),
    "our word": ({"quiet": 1}, "quiet", OUR_FIELDS),
    "misspelt in xargs": (
        {"vllm_xargs": {"thought_buget": 3}},
        "vllm_xargs.thought_buget",
        "did you mean thought_budget?",
    ),
    "a record key of their own": (
        {"vllm_xargs": {"thought_record_key": "x"}},
        "vllm_xargs.thought_record_key",
        "unknown field",
    ),
    "a record key at the top": ({"thought_record_key": "x"}, "thought_record_key", "unknown field"),
    "two budgets": (
        {"thought_budget": 1, "vllm_xargs": {"thought_budget": 2}},
        "thought_budget",
        "thought_budget is 1, but 2 in vllm_xargs: give it once",
    ),
    "two types of one budget": (
        {"thought_budget": 1, "vllm_xargs": {"thought_budget": 1.0}},
        "thought_budget",
        "give it once",
    ),
    "negative budget": ({"thought_budget": -1}, "thought_budget", "from 0 to 16"),
    "large budget": ({"thought_budget": 17}, "thought_budget", "from 0 to 16"),
    "huge budget": ({"thought_budget": 10**30}, "thought_budget", "from 0 to 16"),
    "fraction of a budget": ({"thought_budget": 1.5}, "thought_budget", "a whole number"),
    "budget as a float": ({"thought_budget": 5.0}, "thought_budget", "a whole number"),
    "budget as text": ({"thought_budget": "5"}, "thought_budget", "a whole number"),
    "budget as a truth": ({"thought_budget": True}, "thought_budget", "a whole number"),
    "budget as a list": ({"thought_budget": [1]}, "thought_budget", "a whole number"),
    "budget as text in xargs": (
        {"vllm_xargs": {"thought_budget": "5"}},
        "thought_budget",
        "a whole number",
    ),
    "budget as a truth in xargs": (
        {"vllm_xargs": {"thought_budget": True}},
        "thought_budget",
        "a whole number",
    ),
    "negative temperature": ({"thought_temperature": -0.1}, "thought_temperature", "from 0"),
    "temperature as text": ({"thought_temperature": "hot"}, "thought_temperature", "from 0"),
    "negative token budget": ({"thinking_token_budget": -1}, "thinking_token_budget", "from 0 up"),
    "token budget as a float": (
        {"thinking_token_budget": 2.0},
        "thinking_token_budget",
        "a whole number",
    ),
    "flag as a number": ({"return_thoughts": 1}, "return_thoughts", "must be true or false"),
    "flag as text": ({"return_thoughts": "true"}, "return_thoughts", "must be true or false"),
    "no prompt": ({"prompt": None}, "prompt", "prompt is missing"),
    "empty text": ({"prompt": ""}, "prompt", "at least one token"),
    "empty list": ({"prompt": []}, "prompt", "at least one token"),
    "empty token list": ({"prompt": [[]]}, "prompt", "at least one token"),
    "one empty of two": ({"prompt": ["t1", ""]}, "prompt", "at least one token"),
    "negative token id": ({"prompt": [3, -1]}, "prompt", "token id -1 is out of range"),
    "large token id": (
        {"prompt": [3, VOCAB_SIZE]},
        "prompt",
        f"must be from 0 to {VOCAB_SIZE - 1}",
    ),
    "huge token id": ({"prompt": [[3], [10**30]]}, "prompt", "is out of range"),
    "START as id": ({"prompt": [3, START_ID]}, "prompt", "only the model itself may use"),
    "END as id": ({"prompt": [[3], [END_ID, 3]]}, "prompt", "only the model itself may use"),
    "START as text": ({"prompt": "t1 <|startthought|> t2"}, "prompt", "<|startthought|>"),
    "END as text": ({"prompt": ["t1", "t1<|endthought|>"]}, "prompt", "<|endthought|>"),
    "long prompt": (
        {"prompt": [5] * 1018, "max_tokens": None, "thought_budget": 5},
        "prompt",
        "has 1018 tokens and the completion may have 1, but together they may have 1018: "
        "the context of 1024 less 6 for thoughts of 5",
    ),
    "long prompt and completion": (
        {"prompt": [5] * 1000, "max_tokens": 19, "thought_budget": 5},
        "prompt",
        "together they may have 1018",
    ),
    "long prompt without thoughts": (
        {"prompt": [5] * 1024, "thought_budget": 0},
        "prompt",
        "together they may have 1024",
    ),
    "longer than the context": ({"prompt": [5] * 2000}, "input_tokens", "1024"),
    "long text": ({"prompt": "t5 " * 2000}, "input_tokens", "1024"),
    "bias to START": ({"logit_bias": {str(START_ID): 5}}, "logit_bias", "never part of the text"),
    "only END": ({"allowed_token_ids": [3, END_ID]}, "allowed_token_ids", "never part of the text"),
    "stop at START": ({"stop_token_ids": [START_ID]}, "stop_token_ids", "never part of the text"),
    "START is bad": ({"bad_words": ["<|startthought|>"]}, "bad_words", "never part of the text"),
    # In streams vLLM refuses it first.
    "prompt logprobs": ({"prompt_logprobs": 1}, "prompt_logprobs", "prompt_logprobs"),
    "scoring": (SCORING, "echo", "needs thought_budget 0"),
    "embeddings": ({"prompt_embeds": "AAAA"}, "prompt_embeds", "a prompt of tokens"),
    "beam search": ({"use_beam_search": True, "n": 2}, "use_beam_search", "must be false"),
    "temperature": ({"temperature": -1}, "temperature", "non-negative"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "at least 1"),
}


def error_of(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == status
    return error


@pytest.fixture(scope="module", autouse=True)
def neighbours(http: httpx.Client) -> Iterator[None]:
    """Requests that think all the while: their answers are the same as alone."""
    body = {
        "prompt": "t1 t2 t3",
        "max_tokens": 60,
        "temperature": 1,
        "seed": 5,
        "ignore_eos": True,
        "return_thoughts": True,
    }

    def ask() -> Any:
        (choice,) = http.post("/v1/completions", json=body).raise_for_status().json()["choices"]
        return choice["text"], [thought["token_ids"] for thought in choice["thoughts"]]

    alone = ask()
    answers: list[Any] = []
    done = threading.Event()

    def ask_on() -> None:
        while not done.is_set():
            answers.append(ask())

    neighbour = threading.Thread(target=ask_on)
    neighbour.start()
    yield
    done.set()
    neighbour.join()
    assert answers
    assert all(answer == alone for answer in answers)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_what_is_allowed(http: httpx.Client, name: str, stream: bool) -> None:
    change, parameter, message = BAD[name]
    error = error_of(http.post("/v1/completions", json={**GOOD, **change, "stream": stream}))
    assert message in error["message"]
    assert error["param"] == parameter


@pytest.mark.parametrize(
    "change", [{"prompt_logprobs": 1}, SCORING, {"prompt": [5] * 1000, "max_tokens": 30}]
)
def test_what_thoughts_forbid_goes_without_them(http: httpx.Client, change: dict[str, Any]) -> None:
    answer = http.post("/v1/completions", json={**GOOD, **change, "thought_budget": 0})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("content", ['{"prompt": ', "[]", "3", "", '{"prompt": "\\ud800"}'])
def test_broken_json(http: httpx.Client, content: str) -> None:
    error_of(
        http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    )


def test_another_content_type(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/completions", content="prompt=t1"))
    assert "application/json" in error["message"]


def test_an_unknown_model(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/completions", json={**GOOD, "model": "gpt-4"}), 404)
    assert error["type"] == "NotFoundError"
    assert "golden" in error["message"]


def test_the_official_client_understands_refusals(openai: OpenAI) -> None:
    with pytest.raises(openai_package.BadRequestError, match="from 0 to 16") as caught:
        openai.completions.create(
            model="golden", prompt="t1", max_tokens=1, extra_body={"thought_budget": 99}
        )
    assert caught.value.param == "thought_budget"
    with pytest.raises(openai_package.NotFoundError):
        openai.completions.create(model="another", prompt="t1", max_tokens=1)


def test_a_server_that_neither_thinks_nor_shows_thoughts() -> None:
    options = ("--max-thought-budget", "0", "--served-model-name", "quick", "quicker")
    with running_server(DEMO, *options) as server:
        url = f"{server.url}/v1/completions"
        error = error_of(httpx.post(url, json={"prompt": "a", "thought_budget": 1}))
        assert "thinking is off on this server: only 0 is allowed" in error["message"]
        error = error_of(httpx.post(url, json={"prompt": "a", "return_thoughts": True}))
        assert "without --allow-return-thoughts" in error["message"]

        answer = httpx.post(url, json={"prompt": "a", "model": "quicker"}, timeout=60).json()
        assert answer["quiet_star"]["thought_budget"] == 0
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
        assert httpx.post(url, json={"prompt": "a", "thought_budget": 0}).status_code == 200
        assert "thinking is off" in server.log
