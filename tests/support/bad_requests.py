"""Invalid requests of all kinds, and the recorded answer to each (refusals.json in
`tests/invariants/server`).

To record the answers anew, from a server with the options of the fixture `servers.server`, and to
review the changes:

    python -m tests.support.bad_requests http://127.0.0.1:8000 > refusals.json
"""

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from tests.support.servers import MAX_BODY_BYTES, ROOT

START_ID, END_ID = 64, 65
VOCAB_SIZE = 66
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "t5 t9", "max_tokens": 4},
    CHATS: {"messages": [{"role": "user", "content": "t5 t9"}], "max_tokens": 4},
}
SCORING = {"echo": True, "logprobs": 1}

# Name: what makes a valid request invalid.
BAD_COMPLETIONS: dict[str, dict[str, Any]] = {
    "misspelt budget": {"thought_buget": 3},
    "misspelt temperature": {"thougt_temperature": 1},
    "misspelt flag": {"return_thought": True},
    "another's field": {"thinking": {}},
    "our word": {"quiet": 1},
    "misspelt in xargs": {"vllm_xargs": {"thought_buget": 3}},
    "a record key of their own": {"vllm_xargs": {"thought_record_key": "x"}},
    "a record key at the top": {"thought_record_key": "x"},
    "two budgets": {"thought_budget": 1, "vllm_xargs": {"thought_budget": 2}},
    "two types of one budget": {"thought_budget": 1, "vllm_xargs": {"thought_budget": 1.0}},
    "negative budget": {"thought_budget": -1},
    "large budget": {"thought_budget": 17},
    "huge budget": {"thought_budget": 10**30},
    "fraction of a budget": {"thought_budget": 1.5},
    "budget as a float": {"thought_budget": 5.0},
    "budget as text": {"thought_budget": "5"},
    "budget as a truth": {"thought_budget": True},
    "budget as a list": {"thought_budget": [1]},
    "budget as text in xargs": {"vllm_xargs": {"thought_budget": "5"}},
    "budget as a truth in xargs": {"vllm_xargs": {"thought_budget": True}},
    "negative temperature": {"thought_temperature": -0.1},
    "temperature as text": {"thought_temperature": "hot"},
    "huge temperature": {"thought_temperature": 10**400},
    "temperature of noise": {"thought_temperature": 1e38},
    "another's budget": {"reasoning_budget": 100},
    "the paper's budget": {"n_ahead": 8},
    "another's switch": {"enable_thinking": False},
    "an effort without a chat": {"reasoning_effort": "low"},
    "vLLM's former grammar": {"guided_json": {"type": "object"}},
    "an argument of a client": {"extra_body": {"thought_budget": 8}},
    "options of another": {"options": {"thought_budget": 8}},
    "a budget in an unknown field": {"anything": {"thought_budget": 8}},
    "a schema of itself": {"structured_outputs": {"json": {"$ref": "#"}}},
    "a long id": {"request_id": "a" * 1000},
    "long bad words": {"bad_words": ["t5 " * 20_000]},
    "a choice of bad words": {"structured_outputs": {"choice": ["t5"]}, "bad_words": ["t5"]},
    "negative threshold": {"thought_threshold": -0.1},
    "threshold as text": {"thought_threshold": "0.1"},
    "threshold as a truth": {"thought_threshold": True},
    "misspelt threshold": {"thought_treshold": 0.1},
    "two thresholds": {"thought_threshold": 0.1, "vllm_xargs": {"thought_threshold": 0.2}},
    "a usage key of their own": {"vllm_xargs": {"thought_usage_key": "x"}},
    "negative token budget": {"thinking_token_budget": -1},
    "token budget as a float": {"thinking_token_budget": 2.0},
    "a thought of no tokens": {"first_thought": []},
    "a thought of no words": {"first_thought": ""},
    "a long thought": {"first_thought": [5] * 17},
    "a long thought in words": {"first_thought": "t5 " * 17},
    "a thought longer than any": {"first_thought": "t5 " * 6000},
    "a thought as a number": {"first_thought": 5},
    "a thought of words": {"first_thought": ["t5"]},
    "a thought of lists": {"first_thought": [[5]]},
    "a thought of truths": {"first_thought": [True]},
    "a thought of fractions": {"first_thought": [5.0]},
    "a thought as an object": {"first_thought": {"text": "t5"}},
    "a negative thought": {"first_thought": [5, -1]},
    "a thought out of vocabulary": {"first_thought": [VOCAB_SIZE]},
    "a thought beyond 64 bits": {"first_thought": [10**30]},
    "START in a thought": {"first_thought": [5, START_ID]},
    "END in a thought": {"first_thought": "t5<|endthought|>"},
    "a thought about the prompt": SCORING | {"first_thought": [5]},
    "a thought about an unthinking prompt": SCORING | {"first_thought": [5], "thought_budget": 0},
    "a thought over the budget": {"first_thought": [5, 6], "thinking_token_budget": 1},
    "two thoughts": {"first_thought": [5], "vllm_xargs": {"first_thought": [6]}},
    "misspelt thought": {"first_thougth": [5]},
    "equal answers after a thought": {
        "n": 2,
        "temperature": 0,
        "max_tokens": 1,
        "first_thought": [5],
    },
    "long prompt before a thought": {
        "prompt": [5] * 1018,
        "thought_budget": 0,
        "first_thought": [5] * 5,
    },
    "flag as a number": {"return_thoughts": 1},
    "flag as text": {"return_thoughts": "true"},
    "no prompt": {"prompt": None},
    "empty text": {"prompt": ""},
    "empty list": {"prompt": []},
    "empty token list": {"prompt": [[]]},
    "one empty of two": {"prompt": ["t1", ""]},
    "negative token id": {"prompt": [3, -1]},
    "large token id": {"prompt": [3, VOCAB_SIZE]},
    "huge token id": {"prompt": [[3], [10**30]]},
    "START as id": {"prompt": [3, START_ID]},
    "END as id": {"prompt": [[3], [END_ID, 3]]},
    "START as text": {"prompt": "t1 <|startthought|> t2"},
    "END as text": {"prompt": ["t1", "t1<|endthought|>"]},
    "long prompt": {"prompt": [5] * 1018, "max_tokens": None, "thought_budget": 5},
    "long prompt without thoughts": {"prompt": [5] * 1024, "thought_budget": 0},
    "longer than the context": {"prompt": [5] * 2000},
    "long text": {"prompt": "t5 " * 2000},
    "bias to START": {"logit_bias": {str(START_ID): 5}},
    "only END": {"allowed_token_ids": [3, END_ID]},
    "stop at START": {"stop_token_ids": [START_ID]},
    "START is bad": {"bad_words": ["<|startthought|>"]},
    "scoring": SCORING | {"thinking_token_budget": 4},
    "embeddings": {"prompt_embeds": "AAAA"},
    "beam search": {"use_beam_search": True, "n": 2},
    "equal answers": {"n": 2, "temperature": 0, "thought_budget": 0},
    "equal thoughts": {"n": 2, "temperature": 0, "thought_temperature": 0},
    "temperature": {"temperature": -1},
    "temperature in words": {"temperature": "hot"},
    "no tokens": {"max_tokens": 0},
    "tokens in words": {"max_tokens": "many"},
    "half a token": {"max_tokens": 1.5},
    "huge completion": {"max_tokens": 10**30},
    "no answers": {"n": 0},
    "answers in words": {"n": "two"},
    "a billion answers": {"n": 10**9},
    "top_p": {"top_p": 2},
    "top_k": {"top_k": -5},
    "min_p": {"min_p": 2},
    "presence penalty": {"presence_penalty": 3},
    "frequency penalty": {"frequency_penalty": -3},
    "repetition penalty": {"repetition_penalty": 0},
    "seed": {"seed": 2**70},
    "stop at a number": {"stop": 5},
    "stop at nothing": {"stop": ""},
    "too many log-probabilities": {"logprobs": 100},
    "bias to no token": {"logit_bias": {"x": 1}},
    "bias out of vocabulary": {"logit_bias": {"9999": 1}},
    "bias to a list": {"logit_bias": [1]},
    "no token allowed": {"allowed_token_ids": []},
    "stop out of vocabulary": {"stop_token_ids": [-5]},
    "an empty bad word": {"bad_words": [""]},
    "more tokens than most": {"min_tokens": 9},
    "prompt as a number": {"prompt": 5},
    "prompt as an object": {"prompt": {"text": "t1"}},
    "prompt of fractions": {"prompt": [1.5]},
    "prompt of both": {"prompt": ["t1", 5]},
    "too many prompts": {"prompt": [[5]] * 3000},
    "echo in words": {"echo": "loudly"},
    "xargs as a list": {"vllm_xargs": [1]},
    "unknown format": {"response_format": {"type": "odd"}},
    "two grammars": {"structured_outputs": {"regex": "a", "choice": ["a"]}},
    "broken regular expression": {"structured_outputs": {"regex": "("}},
    "suffix": {"suffix": "t9"},
    "best of": {"best_of": 3},
    "priority": {"priority": 1},
    "penalty of beams": {"length_penalty": 2.0},
    "KV caches": {"kv_transfer_params": {"do_remote_prefill": True}},
    "watermark": {"watermarking": True},
    "too many to stop at": {"stop": ["t5"] * 5000},
    "log-probabilities in words": {"logprobs": "all"},
    "negative log-probabilities": {"logprobs": -2},
    "likeliest tokens of a stream's prompt": {"prompt_logprobs": 1, "stream": True},
    "options of no stream": {"stream_options": {"include_usage": True}, "stream": False},
    "options in words": {"stream_options": "all", "stream": True},
    "an empty salt": {"cache_salt": ""},
    "a salt with a path": {"cache_salt": "../x"},
}

BAD_CHATS: dict[str, dict[str, Any]] = {
    "misspelt budget": {"thought_buget": 3},
    "large budget": {"thought_budget": 17},
    "budget as text": {"thought_budget": "5"},
    "two budgets": {"thought_budget": 1, "vllm_xargs": {"thought_budget": 2}},
    "negative token budget": {"thinking_token_budget": -1},
    "vLLM's way to say no limit": {"thinking_token_budget": -1, "thought_budget": 0},
    "a long thought": {"first_thought": [5] * 17},
    "a thought as a number": {"first_thought": 5},
    "START in a thought": {"first_thought": "<|startthought|>"},
    "a thought about the messages": {"first_thought": "t5", "prompt_logprobs": 1, "stream": False},
    "flag as text": {"return_thoughts": "true"},
    "no messages": {"messages": None},
    "an empty list": {"messages": []},
    "messages as text": {"messages": "t5"},
    "a message as text": {"messages": ["t5"]},
    "no role": {"messages": [{"content": "t5"}]},
    "a role as a number": {"messages": [{"role": 5, "content": "t5"}]},
    "a content as a number": {"messages": [{"role": "user", "content": 5}]},
    "a picture": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png,"}}],
            }
        ]
    },
    "an unknown part": {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
    "START as text": {"messages": [{"role": "user", "content": "t1 <|startthought|>"}]},
    "END as text": {"messages": [{"role": "system", "content": "<|endthought|>"}]},
    "long messages": {"messages": [{"role": "user", "content": "t5 " * 1017}]},
    "longer than the context": {"messages": [{"role": "user", "content": "t5 " * 2000}]},
    "no tokens": {"max_tokens": 0},
    "no completion tokens": {"max_completion_tokens": 0},
    "half a token": {"max_completion_tokens": 1.5},
    "no answers": {"n": 0},
    "a billion answers": {"n": 10**9},
    "temperature": {"temperature": -1},
    "top_p": {"top_p": 2},
    "likeliest without log-probabilities": {"top_logprobs": 2},
    "too many log-probabilities": {"logprobs": True, "top_logprobs": 100},
    "log-probabilities in words": {"logprobs": "all"},
    "bias to START": {"logit_bias": {str(START_ID): 5}},
    "a tool without a parser": {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
    },
    "no tools": {"tools": []},
    "a choice of no tools": {"tool_choice": "auto"},
    "a template of their own": {"chat_template": "{{ 1 }}"},
    "begun and beginning": {"add_generation_prompt": True, "continue_final_message": True},
    "scoring": {"prompt_logprobs": 1, "thinking_token_budget": 4, "stream": False},
    "beam search": {"use_beam_search": True, "n": 2},
    "best of": {"best_of": 3},
    "priority": {"priority": 1},
    "KV caches": {"kv_transfer_params": {"do_remote_prefill": True}},
    "token ids of their own": {"kv_transfer_params": {"prompt_token_ids": [START_ID]}},
    "unknown format": {"response_format": {"type": "odd"}},
    "no schema": {"response_format": {"type": "json_schema"}},
    "broken regular expression": {"structured_outputs": {"regex": "("}},
    "an effort of their own": {"reasoning_effort": "heroic"},
    "an effort of others": {"reasoning_effort": "minimal"},
}
# Name: path, body.
BAD_OTHERS: dict[str, tuple[str, Any]] = {
    "tokenize nothing": ("/tokenize", {}),
    "tokenize a number": ("/tokenize", {"prompt": 5}),
    "tokenize for another model": ("/tokenize", {"prompt": "t5", "model": "another"}),
    "tokenize an empty chat": ("/tokenize", {"messages": []}),
    "tokenize by a template of their own": (
        "/tokenize",
        {"messages": [{"role": "user", "content": "t5"}], "chat_template": "{{ 1 }}"},
    ),
    "detokenize nothing": ("/detokenize", {}),
    "detokenize text": ("/detokenize", {"tokens": "t5"}),
    "detokenize a negative": ("/detokenize", {"tokens": [-1]}),
    "detokenize a huge token": ("/detokenize", {"tokens": [2**40]}),
    "detokenize beyond 64 bits": ("/detokenize", {"tokens": [10**30]}),
}
JSON = {"Content-Type": "application/json"}


class Bad(NamedTuple):
    """An invalid request."""

    content: bytes
    path: str = COMPLETIONS
    method: str = "POST"
    headers: dict[str, str] = JSON


def body(**fields: str) -> bytes:
    """A valid request, with further fields as JSON texts."""
    good = json.dumps(GOOD[COMPLETIONS]).removesuffix("}")
    return (good + "".join(f', "{name}": {value}' for name, value in fields.items()) + "}").encode()


# Wrong as a whole.
BROKEN: dict[str, Bad] = {
    "nothing": Bad(b""),
    "null": Bad(b"null"),
    "a number": Bad(b"3"),
    "a list": Bad(b"[]"),
    "truncated": Bad(b'{"prompt": '),
    "a comma too many": Bad(b'{"prompt": "t1",}'),
    "single quotes": Bad(b"{'prompt': 't1'}"),
    "two bodies": Bad(body() * 2),
    "a control character": Bad(b'{"prompt": "t1\0"}'),
    "invalid UTF-8": Bad(b'{"prompt": "\xff"}'),
    "deep nesting": Bad(b'{"prompt": ' + b"[" * 100_000),
    "nested prompts": Bad(body(prompt="[" * 300 + "]" * 300)),
    "nested xargs": Bad(body(vllm_xargs='{"x":' + "[" * 300 + "]" * 300 + "}")),
    "5000 digits": Bad(body(max_tokens="9" * 5000)),
    "NaN": Bad(body(temperature="NaN")),
    "infinity": Bad(body(thought_temperature="Infinity")),
    "beyond floats": Bad(body(top_p="1e400")),
    "NaN within": Bad(body(logit_bias='{"5": NaN}')),
    "half a character": Bad(body(prompt='"\\ud800"')),
    "half a character to stop at": Bad(body(stop='"\\ud800"')),
    "half a character in an id": Bad(body(request_id='"\\ud800"')),
    "a doubled field": Bad(body(thought_budget='1, "thought_budget": 99')),
    "an unknown model": Bad(body(model='"gpt-4"')),
    "a form": Bad(b"prompt=t1", headers={"Content-Type": "application/x-www-form-urlencoded"}),
    "no content type": Bad(body(), headers={}),
    "compressed": Bad(b"\x1f\x8b123", headers={**JSON, "Content-Encoding": "gzip"}),
    "a large body": Bad(body(prompt='"' + "t5 " * MAX_BODY_BYTES + '"')),
    "another path": Bad(body(), path="/v1/completion"),
    "a doubled slash": Bad(body(), path="//v1/completions"),
    "a path that leaves": Bad(b"", path="/..%2f..%2fetc/passwd"),
    "GET": Bad(b"", method="GET"),
    "PUT": Bad(body(), method="PUT"),
    "POST to a list": Bad(body(), path="/v1/models"),
    "another replica": Bad(body(), headers={**JSON, "X-data-parallel-rank": "5"}),
    "no chat": Bad(b"", path=CHATS),
    "a chat that is a list": Bad(b"[]", path=CHATS),
    "a truncated chat": Bad(b'{"messages": [', path=CHATS),
    "a chat in invalid UTF-8": Bad(b'{"messages": "\xff"}', path=CHATS),
    "nested messages": Bad(b'{"messages": ' + b"[" * 300 + b"]" * 300 + b"}", path=CHATS),
    "half a character in a message": Bad(
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}', path=CHATS
    ),
    "NaN in a chat": Bad(b'{"messages": [{"role": "user"}], "top_p": NaN}', path=CHATS),
    "a chat by GET": Bad(b"", path=CHATS, method="GET"),
    "truncated text to tokenize": Bad(b'{"prompt": "', path="/tokenize"),
}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
# Name: bytes on the wire.
ON_THE_WIRE: dict[str, bytes] = {
    "a host of others": b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00 hello\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length in words": HEAD + b"Content-Length: many\r\n\r\n",
    "a length beyond 64 bits": HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "an absurd length": HEAD + b"Content-Length: 1000000000000000\r\n\r\n{",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a broken chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "many chunks": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 17,
    "a broken header": HEAD + b"X y: z\r\n\r\n",
    "a huge header": HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": HEAD + b"X: a\r\n" * 20_000 + b"\r\n",
    "a huge path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
}
# They take as long as the server allows.
SLOW: dict[str, bytes] = {
    "headers that never end": HEAD,
    "a body that never comes": HEAD + b"Content-Length: 50\r\n\r\n",
    "a body that never ends": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
}


def all_bad() -> dict[str, Bad]:
    """Every request that is well-formed HTTP, by name."""
    made = {
        f"{path} {name}": Bad(json.dumps(GOOD[path] | change).encode(), path)
        for path, changes in ((COMPLETIONS, BAD_COMPLETIONS), (CHATS, BAD_CHATS))
        for name, change in changes.items()
    }
    others = {
        name: Bad(json.dumps(content).encode(), path)
        for name, (path, content) in BAD_OTHERS.items()
    }
    return made | others | BROKEN


def send(http: httpx.Client, bad: Bad) -> httpx.Response:
    return http.request(bad.method, bad.path, content=bad.content, headers=bad.headers)


def exchange(url: str, data: bytes, drip: bytes = b"") -> bytes:
    """The server's whole answer to some bytes; `drip` is sent again and again after them."""
    address = httpx.URL(url)
    answer = b""
    with socket.create_connection((address.host, address.port or 80), timeout=0.5) as connection:
        deadline = time.monotonic() + 60
        # A server that has refused a request may not read the rest of it.
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


def refusal(status: int, content: bytes) -> dict[str, Any]:
    """The status and OpenAI's error object of an answer; or its line of text, for invalid HTTP."""
    try:
        return {"status": status, **json.loads(content)}
    except ValueError:
        return {"status": status, "text": content.decode()}


def refusal_on_the_wire(answer: bytes) -> dict[str, Any]:
    """The same for the bytes of an answer."""
    head, _, content = answer.partition(b"\r\n\r\n")
    return refusal(int(head.split()[1]), content)


def recorded() -> dict[str, dict[str, Any]]:
    """The recorded answers, by name."""
    found: dict[str, dict[str, Any]]
    found = json.loads((ROOT / "tests/invariants/server/refusals.json").read_text())
    return found


def record(url: str) -> dict[str, dict[str, Any]]:
    """The answers of the server at `url`, by name."""
    with httpx.Client(base_url=url, timeout=120) as http, ThreadPoolExecutor() as pool:
        slow = {name: pool.submit(exchange, url, data) for name, data in SLOW.items()}
        answers = {name: send(http, bad) for name, bad in all_bad().items()}
        found = {name: refusal(it.status_code, it.content) for name, it in answers.items()}
        wire = {name: exchange(url, data) for name, data in ON_THE_WIRE.items()}
        wire |= {name: answer.result() for name, answer in slow.items()}
    return found | {name: refusal_on_the_wire(answer) for name, answer in wire.items()}


if __name__ == "__main__":
    json.dump(record(sys.argv[1]), sys.stdout, indent=1, ensure_ascii=False)
    print()
