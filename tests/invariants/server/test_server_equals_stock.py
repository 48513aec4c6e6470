"""At budget 0 a server's answers equal, field by field, those of vLLM's own server of the same base
model.

The base model is the demonstration model without its mixing head, START and END, so that even
log-probabilities are equal. Ours may have additional fields (`quiet_star`, `thought_tokens`), and
ids and times differ between any two answers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from quietstar_infer.checkpoint import GATE_FILE, load_tensors, thought_tensor_shapes
from tests.support.checkpoints import copy_checkpoint
from tests.support.servers import DEMO, running_server, running_stock_server

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
OPTIONS = ("--served-model-name", "twin", "--max-model-len", "160")
DIAL = "Ann has the dial at 2:"
# Two independent computations of the same numbers in float32.
TOLERANCE = 1e-4
# These belong to one request or process, or are ours.
APART = {"id", "created", "system_fingerprint", "quiet_star"}
APART |= {"thought_tokens", "completion_tokens_details"}

COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": DIAL},
    "to its end": {"prompt": DIAL, "max_tokens": 60},
    "as it likes": {"prompt": DIAL, "max_tokens": None, "temperature": None, "seed": 1},
    "token ids": {"prompt": [5, 90, 300]},
    "texts": {"prompt": [DIAL, "Ben has 7 apples."]},
    "lists of token ids": {"prompt": [[5, 90, 300], [17]]},
    "answers": {"prompt": [DIAL, "The"], "n": 3, "temperature": 1, "seed": 7},
    "echo": {"prompt": DIAL, "echo": True},
    "echo of token ids": {"prompt": [5, 90, 300], "echo": True},
    "echo with log-probabilities": {"prompt": DIAL, "echo": True, "logprobs": 3},
    "the prompt alone": {"prompt": DIAL, "echo": True, "logprobs": 1, "max_tokens": 0},
    "log-probabilities": {"prompt": DIAL, "logprobs": 5},
    "log-probability of the token": {"prompt": DIAL, "logprobs": 0},
    "log-probabilities of the prompt": {"prompt": DIAL, "prompt_logprobs": 2, "stream": False},
    "log-probabilities of some": {"prompt": DIAL, "logprobs": 1, "logprob_token_ids": [5, 9]},
    "tokens by number": {"prompt": DIAL, "logprobs": 1, "return_tokens_as_token_ids": True},
    "token ids back": {"prompt": DIAL, "return_token_ids": True},
    "a stop string": {"prompt": "The dog", "max_tokens": 40, "stop": "."},
    "a stop string kept": {
        "prompt": "The dog",
        "max_tokens": 40,
        "stop": ["?", "."],
        "include_stop_str_in_output": True,
    },
    "a stop token": {"prompt": DIAL, "stop_token_ids": list(range(20, 60))},
    "penalties": {"prompt": DIAL, "presence_penalty": 1.5, "frequency_penalty": 0.5},
    "a repetition penalty": {"prompt": DIAL, "repetition_penalty": 1.7},
    "a bias": {"prompt": DIAL, "logit_bias": {"40": 100, "41": 99.5}, "logprobs": 2},
    "allowed tokens": {"prompt": DIAL, "allowed_token_ids": [40, 41, 300]},
    "bad words": {"prompt": DIAL, "bad_words": [" Ann", "dial"]},
    "no end": {"prompt": DIAL, "max_tokens": 60, "ignore_eos": True},
    "a late end": {"prompt": DIAL, "max_tokens": 60, "min_tokens": 50},
    "sampled": {"prompt": DIAL, "temperature": 1.3, "seed": 11, "top_p": 0.9, "top_k": 40},
    "sampled from the likely": {"prompt": DIAL, "temperature": 2, "seed": 5, "min_p": 0.05},
    "special tokens shown": {"prompt": DIAL, "max_tokens": 60, "skip_special_tokens": False},
    "a choice": {"prompt": DIAL, "structured_outputs": {"choice": ["yes", "no, never"]}},
    "a pattern": {"prompt": DIAL, "structured_outputs": {"regex": "[0-9]{3}-[a-z]{2}"}},
    "JSON": {
        "prompt": DIAL,
        "max_tokens": 60,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "dial",
                "schema": {
                    "type": "object",
                    "properties": {"at": {"type": "boolean"}},
                    "required": ["at"],
                    "additionalProperties": False,
                },
            },
        },
    },
    "a cut prompt": {"prompt": [5] * 300, "truncate_prompt_tokens": 20},
    "all that fits": {"prompt": [5] * 155, "max_tokens": None, "ignore_eos": True},
    "usage all along": {
        "prompt": DIAL,
        "n": 2,
        "temperature": 1,
        "seed": 2,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "usage at the end": {"prompt": DIAL, "stream_options": {"include_usage": True}},
    "in larger chunks": {"prompt": DIAL, "stream_interval": 5},
}
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": DIAL}]
CHATS: dict[str, dict[str, Any]] = {
    "messages": {},
    "messages in parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": DIAL}]}]
    },
    "to its end": {"max_completion_tokens": 60},
    "answers": {"n": 3, "temperature": 1, "seed": 7},
    "log-probabilities": {"logprobs": True, "top_logprobs": 3},
    "a stop string": {"stop": [" "]},
    "token ids back": {"return_token_ids": True},
    "the prompt back": {"return_prompt_text": True},
    "begun": {
        "messages": [*ASK, {"role": "assistant", "content": "Well,"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "echo": True,
    },
    "a choice": {"structured_outputs": {"choice": ["yes", "no, never"]}},
    "usage all along": {
        "n": 2,
        "temperature": 1,
        "seed": 2,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "text to tokens": ("/tokenize", {"prompt": DIAL, "return_token_strs": True}),
    "messages to tokens": ("/tokenize", {"messages": ASK}),
    "tokens to text": ("/detokenize", {"tokens": [5, 90, 300]}),
}
# By path, what makes a good request bad.
BAD: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"model": "another"}),
    ("/v1/completions", {"prompt": None}),
    ("/v1/completions", {"prompt": 5}),
    ("/v1/completions", {"prompt": [-1]}),
    ("/v1/completions", {"prompt": [10**6]}),
    ("/v1/completions", {"prompt": [5] * 200}),
    ("/v1/completions", {"temperature": -1}),
    ("/v1/completions", {"n": 0}),
    ("/v1/completions", {"top_p": 3}),
    ("/v1/completions", {"logprobs": 1000}),
    ("/v1/completions", {"logit_bias": {"x": 1}}),
    ("/v1/completions", {"stop": 5}),
    ("/v1/completions", {"suffix": "end"}),
    ("/v1/completions", {"response_format": {"type": "odd"}}),
    ("/v1/completions", {"structured_outputs": {"regex": "("}}),
    ("/v1/completions", {"stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": None}),
    ("/v1/chat/completions", {"messages": "hello"}),
    ("/v1/chat/completions", {"messages": [{"content": "hello"}]}),
    ("/v1/chat/completions", {"top_logprobs": 3}),
    ("/v1/chat/completions", {"chat_template": "{{ 1 }}"}),
    ("/v1/chat/completions", {"tool_choice": "required"}),
    ("/tokenize", {}),
    ("/detokenize", {"tokens": ["a"]}),
]


class Twins:
    """Sends the same request to both servers."""

    def __init__(self, ours: httpx.Client, theirs: httpx.Client) -> None:
        self._clients = (ours, theirs)

    def post(self, path: str, body: dict[str, Any], ours: dict[str, Any]) -> list[httpx.Response]:
        bodies = ({**body, **ours}, body)
        return [
            client.post(path, json=its) for client, its in zip(self._clients, bodies, strict=True)
        ]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("twins")
    thinker = copy_checkpoint(DEMO, folder / "thinker", chat_template=TEMPLATE)
    base_model = write_base_model(thinker, folder / "base")
    with (
        running_stock_server(base_model, *OPTIONS) as theirs,
        running_server(thinker, *OPTIONS) as ours,
        httpx.Client(base_url=ours.url, timeout=120) as our_client,
        httpx.Client(base_url=theirs.url, timeout=120) as their_client,
    ):
        yield Twins(our_client, their_client)


def write_base_model(thinker: Path, folder: Path) -> Path:
    """The base model: without START and END, the last two tokens of the vocabulary, and without the
    mixing head."""
    config = json.loads((thinker / "config.json").read_text())
    config["vocab_size"] -= 2
    tensors = load_tensors(thinker)
    for name in thought_tensor_shapes(config["hidden_size"]):
        del tensors[name]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][: config["vocab_size"]].clone()
    base = copy_checkpoint(thinker, folder, config=config, tensors=tensors)
    (base / GATE_FILE).unlink()
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:-2]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    options = json.loads((base / "tokenizer_config.json").read_text())
    del options["extra_special_tokens"]
    (base / "tokenizer_config.json").write_text(json.dumps(options))
    return base


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The places where two answers differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = (ours.keys() | theirs.keys()) - APART
        missing = [f"{where}.{name}" for name in names if (name in ours) != (name in theirs)]
        return missing + [
            difference
            for name in sorted(names & ours.keys() & theirs.keys())
            for difference in differences(ours[name], theirs[name], f"{where}.{name}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            difference
            for index, pair in enumerate(zip(ours, theirs, strict=True))
            for difference in differences(*pair, f"{where}[{index}]")
        ]
    if isinstance(ours, float) and isinstance(theirs, float):
        theirs = pytest.approx(theirs, abs=TOLERANCE)
    return [] if ours == theirs else [f"{where}: {ours} and {theirs}"]


def joined(stream: str) -> dict[str, Any]:
    """The chunks of a stream joined into one: how it is divided depends on timing."""
    *events, done = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert done == "[DONE]"
    whole: dict[str, Any] = {"choices": {}}
    for chunk in map(json.loads, events):
        assert "error" not in chunk, chunk
        for choice in chunk.pop("choices"):
            index = str(choice.pop("index"))
            choice["usage"] = chunk.get("usage")
            add(whole["choices"].setdefault(index, {}), choice)
        whole |= chunk
    return whole


def add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Appends texts and lists, replaces other values."""
    for name, value in part.items():
        before = whole.get(name)
        if isinstance(value, dict) and name != "usage":
            whole[name] = before or {}
            add(whole[name], value)
        elif isinstance(value, str | list) and isinstance(before, str | list):
            whole[name] = before + value  # type: ignore[operator]  # both texts, or both lists
        elif value is not None or before is None:
            whole[name] = value


def assert_same(twins: Twins, path: str, body: dict[str, Any]) -> None:
    body = {"max_tokens": 12, "temperature": 0} | body
    options = body.pop("stream_options", None)
    ours, theirs = twins.post(path, body, {"thought_budget": 0})
    assert ours.status_code == theirs.status_code == 200, ours.text
    expected = theirs.json()
    if body["max_tokens"] == 0:
        # vLLM counts the token that it samples all the same.
        expected["usage"]["completion_tokens"] -= 1
        expected["usage"]["total_tokens"] -= 1
    assert differences(ours.json(), expected) == []
    if "stream" in body:
        return
    streamed = body | {"stream": True} | ({"stream_options": options} if options else {})
    ours, theirs = twins.post(path, streamed, {"thought_budget": 0})
    assert differences(joined(ours.text), joined(theirs.text)) == []


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_completion_equals_vllms(twins: Twins, name: str) -> None:
    assert_same(twins, "/v1/completions", COMPLETIONS[name])


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_equals_vllms(twins: Twins, name: str) -> None:
    assert_same(twins, "/v1/chat/completions", {"messages": ASK} | CHATS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_other_answers_equal_vllms(twins: Twins, name: str) -> None:
    path, body = OTHERS[name]
    ours, theirs = twins.post(path, body, {})
    assert ours.status_code == theirs.status_code == 200
    assert ours.json() == theirs.json()


@pytest.mark.parametrize(("path", "change"), BAD)
def test_what_vllm_refuses_is_refused_with_the_same_status(
    twins: Twins, path: str, change: dict[str, Any]
) -> None:
    """With the same status, in the same shape. Some of our messages are more detailed."""
    good = {"messages": ASK} if "chat" in path else {"prompt": DIAL} if "v1" in path else {}
    ours, theirs = twins.post(path, good | change, {})
    assert ours.status_code == theirs.status_code >= 400, theirs.text
    assert ours.json().keys() == theirs.json().keys() == {"error"}
    assert ours.json()["error"].keys() == theirs.json()["error"].keys()
