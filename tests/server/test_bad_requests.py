"""Each bad request has its status and says what is wrong, and disturbs nobody."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import openai as openai_package
import pytest
from openai import OpenAI

from tests.server.processes import MAX_BODY_BYTES, RECEIVE_SECONDS, RunningServer

START_ID, END_ID = 64, 65
VOCAB_SIZE = 66
OUR_FIELDS = "thought_budget, thought_temperature, thinking_token_budget, return_thoughts"
GOOD = {"prompt": "t5 t9", "max_tokens": 4}
SCORING = {"echo": True, "logprobs": 1}

# Name: what makes a good request bad, the parameter at fault, what the message must say.
BAD: dict[str, tuple[dict[str, Any], str | None, str]] = {
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
    "scoring": (
        SCORING | {"thinking_token_budget": 4},
        "thinking_token_budget",
        "does not go with log-probabilities of the prompt",
    ),
    "embeddings": ({"prompt_embeds": "AAAA"}, "prompt_embeds", "a prompt of tokens"),
    "beam search": ({"use_beam_search": True, "n": 2}, "use_beam_search", "must be false"),
    "temperature": ({"temperature": -1}, "temperature", "non-negative"),
    "temperature in words": ({"temperature": "hot"}, "body.temperature", "a valid number"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "at least 1"),
    "tokens in words": ({"max_tokens": "many"}, "body.max_tokens", "a valid integer"),
    "half a token": ({"max_tokens": 1.5}, "body.max_tokens", "fractional part"),
    "huge completion": ({"max_tokens": 10**30}, "max_tokens", "max_model_len=1024"),
    "no answers": ({"n": 0}, None, "n must be at least 1"),
    "answers in words": ({"n": "two"}, "body.n", "a valid integer"),
    "a billion answers": ({"n": 10**9}, "max_tokens", "this server allows 10000000"),
    "top_p": ({"top_p": 2}, "top_p", "must be in (0, 1]"),
    "top_k": ({"top_k": -5}, None, "top_k must be 0"),
    "min_p": ({"min_p": 2}, None, "min_p must be in [0, 1]"),
    "presence penalty": ({"presence_penalty": 3}, None, "must be in [-2, 2]"),
    "frequency penalty": ({"frequency_penalty": -3}, None, "must be in [-2, 2]"),
    "repetition penalty": ({"repetition_penalty": 0}, None, "greater than zero"),
    "seed": ({"seed": 2**70}, "body.seed", "less than or equal to"),
    "stop at a number": ({"stop": 5}, "body.stop", "a valid string"),
    "stop at nothing": ({"stop": ""}, None, "cannot contain an empty string"),
    "too many log-probabilities": ({"logprobs": 100}, "logprobs", "max allowed: 20"),
    "bias to no token": ({"logit_bias": {"x": 1}}, "logit_bias", "converted to integer"),
    "bias out of vocabulary": ({"logit_bias": {"9999": 1}}, "logit_bias", "out-of-vocab"),
    "bias to a list": ({"logit_bias": [1]}, "body.logit_bias", "a valid dictionary"),
    "no token allowed": ({"allowed_token_ids": []}, "allowed_token_ids", "empty"),
    "stop out of vocabulary": ({"stop_token_ids": [-5]}, "stop_token_ids", "out-of-vocab"),
    "an empty bad word": ({"bad_words": [""]}, None, "cannot contain an empty string"),
    "more tokens than most": ({"min_tokens": 9}, None, "less than or equal to max_tokens=4"),
    "prompt as a number": ({"prompt": 5}, "body.prompt", "a valid list"),
    "prompt as an object": ({"prompt": {"text": "t1"}}, "body.prompt", "a valid list"),
    "prompt of fractions": ({"prompt": [1.5]}, "body.prompt.0", "fractional part"),
    "prompt of both": ({"prompt": ["t1", 5]}, "body.prompt.0", "a valid integer"),
    "too many prompts": ({"prompt": [[5]] * 3000}, "prompt", "maximum allowed count of 1024"),
    "echo in words": ({"echo": "loudly"}, "body.echo", "a valid boolean"),
    "xargs as a list": ({"vllm_xargs": [1]}, "body.vllm_xargs", "a valid dictionary"),
    "unknown format": ({"response_format": {"type": "odd"}}, "body.response_format.type", "odd"),
    "two grammars": (
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "structured_outputs",
        "only use one kind",
    ),
    "broken regular expression": ({"structured_outputs": {"regex": "("}}, None, "unclosed group"),
    "suffix": ({"suffix": "t9"}, "suffix", "only supported for models with FIM"),
}
JSON = {"Content-Type": "application/json"}
NOT_JSON = "the body cannot be read as JSON"


class Broken(NamedTuple):
    """A request that is wrong as a whole."""

    content: bytes
    message: str
    status: int = 400
    path: str = "/v1/completions"
    method: str = "POST"
    headers: dict[str, str] = JSON


def body(**fields: str) -> bytes:
    """A good request whose further fields are JSON texts."""
    good = json.dumps(GOOD).removesuffix("}")
    return (good + "".join(f', "{name}": {value}' for name, value in fields.items()) + "}").encode()


BROKEN: dict[str, Broken] = {
    "nothing": Broken(b"", "Field required"),
    "null": Broken(b"null", "Field required"),
    "a number": Broken(b"3", "a valid dictionary"),
    "a list": Broken(b"[]", "a valid dictionary"),
    "truncated": Broken(b'{"prompt": ', "JSON decode error"),
    "a comma too many": Broken(b'{"prompt": "t1",}', "JSON decode error"),
    "single quotes": Broken(b"{'prompt': 't1'}", "JSON decode error"),
    "two bodies": Broken(body() * 2, "Extra data"),
    "a control character": Broken(b'{"prompt": "t1\0"}', "Invalid control character"),
    "invalid UTF-8": Broken(b'{"prompt": "\xff"}', f"{NOT_JSON}: 'utf-8' codec can't decode"),
    "deep nesting": Broken(b'{"prompt": ' + b"[" * 100_000, NOT_JSON),
    "nested prompts": Broken(body(prompt="[" * 300 + "]" * 300), "validation errors"),
    "nested xargs": Broken(body(vllm_xargs='{"x":' + "[" * 300 + "]" * 300 + "}"), "validation"),
    "5000 digits": Broken(body(max_tokens="9" * 5000), NOT_JSON),
    "NaN": Broken(body(temperature="NaN"), "temperature has a number that is not finite"),
    "infinity": Broken(body(thought_temperature="Infinity"), "not finite"),
    "beyond floats": Broken(body(top_p="1e400"), "not finite"),
    "NaN within": Broken(body(logit_bias='{"5": NaN}'), "logit_bias has a number that is not"),
    "half a character": Broken(body(prompt='"\\ud800"'), "not Unicode"),
    "half a character to stop at": Broken(body(stop='"\\ud800"'), "not Unicode"),
    "half a character in an id": Broken(body(request_id='"\\ud800"'), "not Unicode"),
    "a doubled field": Broken(body(thought_budget='1, "thought_budget": 99'), "from 0 to 16"),
    "an unknown model": Broken(body(model='"gpt-4"'), "golden", 404),
    "a form": Broken(
        b"prompt=t1",
        "application/json",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "no content type": Broken(body(), "application/json", headers={}),
    "compressed": Broken(b"\x1f\x8b123", NOT_JSON, headers={**JSON, "Content-Encoding": "gzip"}),
    "a large body": Broken(body(prompt='"' + "t5 " * MAX_BODY_BYTES + '"'), "larger than", 413),
    "another path": Broken(body(), "/v1/completion: Not Found", 404, path="/v1/completion"),
    "a doubled slash": Broken(body(), "Not Found", 404, path="//v1/completions"),
    "a path that leaves": Broken(b"", "Not Found", 404, path="/..%2f..%2fetc/passwd"),
    "GET": Broken(b"", "GET /v1/completions: Method Not Allowed", 405, method="GET"),
    "PUT": Broken(body(), "Method Not Allowed", 405, method="PUT"),
    "POST to a list": Broken(body(), "Method Not Allowed", 405, path="/v1/models"),
    "another replica": Broken(
        body(), "out of range", headers={**JSON, "X-data-parallel-rank": "5"}
    ),
}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
# Name: bytes on the wire, status, what the answer must say.
ON_THE_WIRE: dict[str, tuple[bytes, int, bytes]] = {
    "another protocol": (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", 400, b"Invalid HTTP"),
    "another version": (b"GET / HTTP/9.9\r\n\r\n", 400, b"Invalid HTTP"),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400, b"Invalid HTTP"),
    "a length in words": (HEAD + b"Content-Length: many\r\n\r\n", 400, b"Invalid HTTP"),
    "a length beyond 64 bits": (
        HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        400,
        b"Invalid HTTP",
    ),
    "an absurd length": (HEAD + b"Content-Length: 1000000000000000\r\n\r\n{", 413, b"larger"),
    "two lengths": (
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
        b"Invalid HTTP",
    ),
    "length and chunks": (
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        b"Invalid HTTP",
    ),
    "a broken chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, b"Invalid HTTP"),
    "many chunks": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 17,
        413,
        b"larger than the 1048576 bytes",
    ),
    "a broken header": (HEAD + b"X y: z\r\n\r\n", 400, b"Invalid HTTP"),
    "a huge header": (HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n", 431, b"too long"),
    "many headers": (HEAD + b"X: a\r\n" * 20_000 + b"\r\n", 431, b"too long"),
    "a huge path": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431, b"too long"),
}
SLOW: dict[str, tuple[bytes, int, bytes]] = {
    "headers that never end": (HEAD, 408, b"headers did not arrive in time"),
    "a body that never comes": (
        HEAD + b"Content-Length: 50\r\n\r\n",
        408,
        f"body did not arrive within {RECEIVE_SECONDS} s".encode(),
    ),
    "a body that never ends": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        408,
        b"RequestTimeoutError",
    ),
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
    assert ask() == alone


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


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_is_told_why(http: httpx.Client, name: str) -> None:
    broken = BROKEN[name]
    answer = http.request(
        broken.method, broken.path, content=broken.content, headers=broken.headers
    )
    assert broken.message in error_of(answer, broken.status)["message"]


def exchange(server: RunningServer, data: bytes, drip: bytes = b"") -> bytes:
    """All that the server answers to some bytes; `drip` follows again and again."""
    url = httpx.URL(server.url)
    answer = b""
    with socket.create_connection((url.host, url.port or 80), timeout=0.5) as connection:
        deadline = time.monotonic() + 60
        # A server that has refused a request need not read the rest of it.
        with suppress(ConnectionError):
            connection.sendall(data)
        while time.monotonic() < deadline:
            try:
                received = connection.recv(65536)
            except TimeoutError:
                if b"\r\n\r\n" in answer:
                    return answer
                with suppress(ConnectionError):
                    connection.sendall(drip)
                continue
            except ConnectionError:
                return answer
            answer += received
            if not received:
                return answer
    raise AssertionError("the connection is still open")


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_what_is_no_request_is_told_so(server: RunningServer, name: str) -> None:
    data, status, message = ON_THE_WIRE[name]
    answer = exchange(server, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert message in answer


def test_slow_senders_are_cut_off(server: RunningServer) -> None:
    """All at once: each takes as long as the server lets it."""
    silent = "says nothing"
    with ThreadPoolExecutor() as pool:
        answers = {name: pool.submit(exchange, server, sent[0]) for name, sent in SLOW.items()}
        answers[silent] = pool.submit(exchange, server, b"")
        answers["drips"] = pool.submit(exchange, server, HEAD, b"X: a\r\n")
    for name, (_, status, message) in SLOW.items():
        answer = answers[name].result()
        assert answer.startswith(b"HTTP/1.1 %d " % status), name
        assert message in answer
    assert answers[silent].result() == b""
    assert answers["drips"].result().startswith(b"HTTP/1.1 408 ")


def test_the_official_client_understands_refusals(openai: OpenAI) -> None:
    with pytest.raises(openai_package.BadRequestError, match="from 0 to 16") as caught:
        openai.completions.create(
            model="golden", prompt="t1", max_tokens=1, extra_body={"thought_budget": 99}
        )
    assert caught.value.param == "thought_budget"
    with pytest.raises(openai_package.NotFoundError):
        openai.completions.create(model="another", prompt="t1", max_tokens=1)


def test_a_server_that_neither_thinks_nor_shows_thoughts(quick_server: RunningServer) -> None:
    url = f"{quick_server.url}/v1/completions"
    error = error_of(httpx.post(url, json={"prompt": "a", "thought_budget": 1}))
    assert "thinking is off on this server: only 0 is allowed" in error["message"]
    error = error_of(httpx.post(url, json={"prompt": "a", "return_thoughts": True}))
    assert "without --allow-return-thoughts" in error["message"]

    answer = httpx.post(url, json={"prompt": "a", "model": "quicker"}, timeout=60).json()
    assert answer["quiet_star"]["thought_budget"] == 0
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    assert httpx.post(url, json={"prompt": "a", "thought_budget": 0}).status_code == 200
    assert "thinking is off" in quick_server.log
