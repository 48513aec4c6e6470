"""One server for most tests, because an engine takes its time to start."""

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.server.processes import (
    DEMO,
    GOLDEN,
    MAX_BODY_BYTES,
    RECEIVE_SECONDS,
    RunningServer,
    running_server,
)
from tests.support.checkpoints import write_random_checkpoint

# Of the words of the small models. The role says which word begins a message.
CHAT_TEMPLATE = (
    "<s>{% set words = roles or {'system': 't10', 'user': 't11', 'assistant': 't12'} %}"
    "{% for message in messages %} {{ words[message.role] }} {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %} t12{% endif %}"
)


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A server that shows thoughts, of a small random model with words t0 … t63."""
    model = GOLDEN / "engine_greedy_n4" / "checkpoint"
    options = [
        *("--served-model-name", "golden", "--allow-return-thoughts"),
        *("--chat-template", CHAT_TEMPLATE),
        *("--receive-timeout", str(RECEIVE_SECONDS)),
        *("--max-body-mib", str(MAX_BODY_BYTES >> 20)),
    ]
    with running_server(model, *options) as running:
        yield running


@pytest.fixture(scope="session")
def n8_server() -> Iterator[RunningServer]:
    """A server of the model whose recordings have longer thoughts."""
    model = GOLDEN / "engine_greedy_n8" / "checkpoint"
    with running_server(model, "--allow-return-thoughts") as running:
        yield running


@pytest.fixture(scope="session")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def openai(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def demo_server() -> Iterator[RunningServer]:
    """The demonstration model as `make serve` serves it."""
    with running_server(DEMO, "--allow-return-thoughts") as running:
        yield running


@pytest.fixture(scope="session")
def quick_server() -> Iterator[RunningServer]:
    """A server that neither thinks nor shows thoughts."""
    options = ("--max-thought-budget", "0", "--served-model-name", "quick", "quicker")
    with running_server(DEMO, *options) as running:
        yield running


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with little room: a ninth request waits, and a few long ones preempt each other.

    Its environment asks for prometheus_client's mode for many processes, which must not matter.
    """
    model = write_random_checkpoint(tmp_path_factory.mktemp("small"), "llama")
    # 12 blocks of 32 tokens: 2 layers, K and V, 1 head of 32, 4 bytes.
    kv_cache_bytes = 12 * 32 * 2 * 2 * 32 * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
        with running_server(
            model,
            *("--served-model-name", "small", "--allow-return-thoughts"),
            *("--max-num-seqs", "8", "--max-model-len", "256"),
            *("--block-size", "32", "--kv-cache-memory-bytes", str(kv_cache_bytes)),
        ) as running:
            yield running
