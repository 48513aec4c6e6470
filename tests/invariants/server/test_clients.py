"""Other projects' clients, unchanged."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai as openai_package
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI
from openai import AsyncOpenAI
from pydantic import SecretStr

from tests.support.checkpoints import copy_checkpoint
from tests.support.loadtest.vllm_bench import BENCH
from tests.support.servers import CHAT_TEMPLATE, GOLDEN, ROOT, RunningServer, running_server

pytestmark = pytest.mark.slow

CHECKPOINT = GOLDEN / "engine_greedy_n4" / "checkpoint"
PROMPT = "t5 t9 t13"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
OURS = {"thought_budget": 2, "thought_temperature": 0, "ignore_eos": True, "return_thoughts": True}
ASK: dict[str, Any] = {"model": "golden", "max_tokens": 5, "temperature": 0, "extra_body": OURS}


@pytest.fixture
def asynchronous(server: RunningServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def said(http: httpx.Client, budget: int = 2) -> str:
    """The text that all clients should get for PROMPT."""
    body = ASK["extra_body"] | {"prompt": PROMPT, "max_tokens": 5, "temperature": 0}
    answer = http.post("/v1/completions", json=body | {"thought_budget": budget})
    text: str = answer.raise_for_status().json()["choices"][0]["text"]
    return text


def replied(http: httpx.Client) -> str:
    """The same for MESSAGES."""
    body = ASK["extra_body"] | {"messages": MESSAGES, "max_tokens": 5, "temperature": 0}
    answer = http.post("/v1/chat/completions", json=body)
    text: str = answer.raise_for_status().json()["choices"][0]["message"]["content"]
    return text


class TestOpenAI:
    """The official package."""

    def test_completions(self, openai: openai_package.OpenAI, http: httpx.Client) -> None:
        answer = openai.completions.create(prompt=PROMPT, **ASK)
        assert answer.choices[0].text == said(http)
        # Fields that the package does not know are there, too.
        thoughts = answer.choices[0].thoughts
        assert len(thoughts) == 5
        parts = openai.completions.create(prompt=PROMPT, stream=True, **ASK)
        assert "".join(part.choices[0].text for part in parts) == said(http)

    def test_chats(self, openai: openai_package.OpenAI, http: httpx.Client) -> None:
        answer = openai.chat.completions.create(messages=MESSAGES, **ASK)
        assert answer.choices[0].message.content == replied(http)
        parts = openai.chat.completions.create(messages=MESSAGES, stream=True, **ASK)
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        assert text == replied(http)

    async def test_asynchronously(self, asynchronous: AsyncOpenAI, http: httpx.Client) -> None:
        async with asynchronous as client:
            answer = await client.completions.create(prompt=PROMPT, **ASK)
            assert answer.choices[0].text == said(http)
            texts = await client.completions.create(prompt=PROMPT, stream=True, **ASK)
            assert "".join([part.choices[0].text async for part in texts]) == said(http)
            reply = await client.chat.completions.create(messages=MESSAGES, **ASK)
            assert reply.choices[0].message.content == replied(http)
            deltas = await client.chat.completions.create(messages=MESSAGES, stream=True, **ASK)
            text = "".join([part.choices[0].delta.content or "" async for part in deltas])
            assert text == replied(http)

    def test_models(self, openai: openai_package.OpenAI) -> None:
        assert openai.models.list().data[0].id == "golden"

    @pytest.mark.parametrize(
        ("model", "header", "own", "budget", "threshold"),
        [
            ("golden", None, {}, 5, 0),
            ("golden:think-8", None, {}, 8, 0),
            ("golden/careful", None, {}, 4, 0.5),
            ("golden", "2", {}, 2, 0),
            ("golden/careful", "2", {}, 2, 0.5),
            ("golden/careful", "2", {"thought_budget": 3}, 3, 0.5),
            ("golden/careful", None, {"thought_threshold": 0}, 4, 0),
            ("golden:think-8", "16", {"thought_budget": 0}, 0, 0),
        ],
    )
    def test_aliases_and_headers(
        self,
        openai: openai_package.OpenAI,
        model: str,
        header: str | None,
        own: dict[str, Any],
        budget: int,
        threshold: float,
    ) -> None:
        """A field of the request wins over the header, the header over the alias."""
        ask: dict[str, Any] = {"model": model, "max_tokens": 2, "extra_body": own}
        if header is not None:
            ask["extra_headers"] = {"X-Thought-Budget": header}
        whole = openai.completions.create(prompt=PROMPT, **ask)
        chat = openai.chat.completions.create(messages=MESSAGES, **ask)
        first, *_ = openai.chat.completions.create(messages=MESSAGES, stream=True, **ask)
        for answer in (whole, chat, first):
            settings = answer.model_dump()["quiet_star"]
            assert (settings["thought_budget"], settings["thought_threshold"]) == (
                budget,
                threshold,
            )
            # As OpenAI's own aliases: the model that has answered.
            assert answer.model == "golden"

    def test_a_bad_header_is_refused(self, openai: openai_package.OpenAI) -> None:
        for name, text, message in (
            ("X-Thought-Budget", "99", "the header x-thought-budget: thought_budget is 99"),
            ("X-Thought-Bugdet", "9", "unknown header x-thought-bugdet"),
        ):
            with pytest.raises(openai_package.BadRequestError, match=message):
                openai.completions.create(prompt=PROMPT, **ASK, extra_headers={name: text})

    @pytest.mark.parametrize("stream", [False, True])
    def test_refusals(self, openai: openai_package.OpenAI, stream: bool) -> None:
        bad: dict[str, Any] = {**ASK, "extra_body": {"thought_budget": 99}, "stream": stream}
        for ask in (
            lambda body: openai.completions.create(prompt=PROMPT, **body),
            lambda body: openai.chat.completions.create(messages=MESSAGES, **body),
        ):
            with pytest.raises(openai_package.BadRequestError, match="from 0 to 16") as caught:
                ask(bad)
            assert caught.value.param == "thought_budget"
            with pytest.raises(openai_package.NotFoundError, match="does not exist"):
                ask({**ASK, "model": "another", "stream": stream})


class TestLangChain:
    """LangChain's integration of OpenAI's API."""

    @pytest.fixture
    def options(self, server: RunningServer) -> dict[str, Any]:
        return {
            "base_url": f"{server.url}/v1",
            "api_key": SecretStr("none"),
            "model": "golden",
            "temperature": 0,
            "max_tokens": 5,
            "extra_body": OURS,
            "max_retries": 0,
        }

    def test_completions(self, options: dict[str, Any], http: httpx.Client) -> None:
        model = OpenAI(**options)
        assert model.invoke(PROMPT) == said(http)
        assert "".join(model.stream(PROMPT)) == said(http)
        assert model.batch([PROMPT, PROMPT]) == [said(http)] * 2

    def test_chats(self, options: dict[str, Any], http: httpx.Client) -> None:
        model = ChatOpenAI(**options)
        answer = model.invoke([HumanMessage(PROMPT)])
        assert answer.content == replied(http)
        assert answer.usage_metadata is not None
        # Thoughts are not a part of what LangChain takes for the answer's tokens.
        assert answer.usage_metadata["output_tokens"] == 5
        assert not answer.usage_metadata.get("output_token_details")
        assert model.invoke([SystemMessage("t1"), HumanMessage(PROMPT)]).content
        parts = list(model.stream([HumanMessage(PROMPT)], stream_usage=True))
        assert "".join(str(part.content) for part in parts) == replied(http)
        whole = sum(parts[1:], start=parts[0])
        assert isinstance(whole, AIMessageChunk)
        assert whole.usage_metadata == answer.usage_metadata

    async def test_asynchronously(self, options: dict[str, Any], http: httpx.Client) -> None:
        assert await OpenAI(**options).ainvoke(PROMPT) == said(http)
        model = ChatOpenAI(**options)
        parts = [str(part.content) async for part in model.astream([HumanMessage(PROMPT)])]
        assert "".join(parts) == replied(http)

    def test_refusals(self, options: dict[str, Any]) -> None:
        bad = options | {"extra_body": {"thought_budget": 99}}
        for model in (OpenAI(**bad), ChatOpenAI(**bad)):
            with pytest.raises(openai_package.BadRequestError, match="from 0 to 16"):
                model.invoke(PROMPT)


class TestCurl:
    JSON = ("-H", "Content-Type: application/json")

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        if shutil.which("curl") is None:
            pytest.skip("there is no curl here")

    def curl(self, url: str, body: dict[str, Any], *options: str) -> str:
        command = [
            "curl",
            "-sS",
            "--fail-with-body",
            *options,
            url,
            *self.JSON,
            "-d",
            json.dumps(body),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return done.stdout

    def test_a_whole_answer(self, server: RunningServer, http: httpx.Client) -> None:
        body = {"prompt": PROMPT, "max_tokens": 5, "temperature": 0, **OURS}
        answer = json.loads(self.curl(f"{server.url}/v1/completions", body))
        assert answer["choices"][0]["text"] == said(http)

    def test_a_stream(self, server: RunningServer, http: httpx.Client) -> None:
        body = {"messages": MESSAGES, "max_tokens": 5, "temperature": 0, "stream": True, **OURS}
        answer = self.curl(f"{server.url}/v1/chat/completions", body, "-N")
        *events, done = [line.removeprefix("data: ") for line in answer.splitlines() if line]
        assert done == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        assert "".join(delta["content"] for delta in deltas) == replied(http)

    def test_the_commands_in_the_documentation(self, server: RunningServer) -> None:
        text = (ROOT / "docs" / "api.md").read_text()
        commands = re.findall(r"^curl .*$", text, re.MULTILINE)
        assert len(commands) > 10
        for command in commands:
            here = command.replace("http://127.0.0.1:8000", server.url) + " --fail"
            done = subprocess.run(["bash", "-c", here], capture_output=True, timeout=120)
            assert done.returncode == 0, command
            assert done.stdout or command.endswith("/ping")

    def test_the_error_in_the_documentation_is_the_servers(self, http: httpx.Client) -> None:
        text = (ROOT / "docs" / "api.md").read_text().partition("\n## Errors\n")[2]
        (example, *_) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        body = {"prompt": PROMPT, "thought_budget": 99}
        assert json.loads(example) == http.post("/v1/completions", json=body).json()

    def test_an_error(self, server: RunningServer) -> None:
        answer = self.curl(f"{server.url}/v1/completions", {"prompt": PROMPT, "n": 0})
        assert json.loads(answer)["error"]["code"] == 400


def test_vllms_benchmark(server: RunningServer, tmp_path: Path) -> None:
    """`vllm bench serve`: all requests are answered, in full."""
    arguments = [
        *("--backend", "openai", "--base-url", server.url),
        *("--model", "golden", "--tokenizer", str(CHECKPOINT)),
        *("--dataset-name", "random", "--random-input-len", "8", "--random-output-len", "6"),
        *("--num-prompts", "12", "--max-concurrency", "4", "--ignore-eos", "--seed", "1"),
        *("--extra-body", json.dumps({"thought_budget": 3})),
        *("--save-result", "--result-dir", str(tmp_path), "--disable-tqdm"),
    ]
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BENCH],
        input=json.dumps([arguments]),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.iterdir()
    result = json.loads(file.read_text())
    assert (result["completed"], result["failed"]) == (12, 0)
    assert result["total_output_tokens"] == 12 * 6


@pytest.fixture
def briefly(tmp_path: Path) -> Iterator[RunningServer]:
    """A server with a short context: most random requests do not limit their answers."""
    model = copy_checkpoint(CHECKPOINT, tmp_path / "model", chat_template=CHAT_TEMPLATE)
    options = (
        "--max-model-len",
        "48",
        "--default-thought-budget",
        "1",
        "--max-thought-budget",
        "4",
    )
    with running_server(model, *options, "--allow-return-thoughts") as server:
        yield server


def test_random_requests_from_our_openapi_document(briefly: RunningServer, tmp_path: Path) -> None:
    """schemathesis reads the OpenAPI document and finds no request that gets a 5xx."""
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run"),
        *(f"{briefly.url}/openapi.json", "--checks", "not_a_server_error"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1"),
        *("--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"),
        *("--request-timeout", "60", "--no-color"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=briefly.log_file.parent
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tested = re.search(r"(\d+) generated", done.stdout)
    assert tested is not None
    assert int(tested[1]) > 300
    assert httpx.get(f"{briefly.url}/health").status_code == 200
