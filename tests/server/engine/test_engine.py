"""What vLLM's whole configuration must be, before an engine is started with it."""

import shutil
from pathlib import Path

import pytest

from server.cli import parse_arguments, thinking_options
from server.engine.engine import engine_config
from server.engine.startup import engine_arguments
from server.errors import ExitStatus, StartError
from tests.support.servers import DEMO, GOLDEN

MODEL = GOLDEN / "engine_greedy_n4" / "checkpoint"


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command line changes in its process must not reach the next test."""
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)


def refusal(model: Path, *options: str) -> StartError:
    args = parse_arguments([str(model), *options])
    with pytest.raises(StartError) as raised:
        engine_config(engine_arguments(args, thinking_options(args)))
    return raised.value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-thought-budget", "9000"], "takes a context of 9003"),
        (["--max-model-len", "18"], "takes a context of 19"),
        (["--max-num-seqs", "1000000000"], "max_num_seqs (1000000000)"),
        (["--block-size", "0"], "--block-size is 0: Input should be greater than 0"),
        (
            ["--generation-config", "/nowhere"],
            "--generation-config, --override-generation-config: ",
        ),
        (["--override-generation-config", '{"temperature": -3}'], "temperature must be non-negat"),
    ],
)
def test_an_option_that_cannot_work_is_named(options: list[str], words: str) -> None:
    error = refusal(DEMO, *options)
    assert words in str(error)
    assert error.status == ExitStatus.BAD_OPTION


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("generation_config.json", "{", "is not valid JSON"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id is 'x'"),
        ("generation_config.json", '{"temperature": "hot"}', "the defaults of requests"),
        ("chat_template.jinja", "{% if %}", "chat template, line 1: Expected an expression"),
    ],
)
def test_a_checkpoints_file_that_requests_need_is_named(
    tmp_path: Path, file: str, content: str, words: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model, copy_function=shutil.copyfile)
    (model / file).write_text(content)
    error = refusal(model)
    assert words in str(error)
    assert str(model) in str(error)
    assert error.status == ExitStatus.NO_MODEL
