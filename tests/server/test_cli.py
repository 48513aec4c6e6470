"""The command line: its help, and one line for each mistake."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli import main, make_parser, parse_arguments, thinking_options
from server.errors import ExitStatus
from server.vllm_api import FlexibleArgumentParser
from tests.support.hub import made_up_hub
from tests.support.servers import DEMO, GOLDEN, ROOT, START_SECONDS

GOLDEN_MODEL = GOLDEN / "engine_greedy_n4" / "checkpoint"
SERVER = (sys.executable, "-m", "server")
OURS = (
    "--max-thought-budget",
    "--default-thought-budget",
    "--default-thought-temperature",
    "--default-thought-threshold",
    "--thought-embeddings",
    "--allow-return-thoughts",
    "--alias",
    "--max-recorded-thought-tokens",
)
LIMITS = (
    "--max-queued-requests",
    "--max-queued-passes",
    "--max-request-passes",
    "--request-timeout",
    "--receive-timeout",
    "--grammar-timeout",
    "--max-body-mib",
)


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command line changes in its process must not reach the next test."""
    monkeypatch.setattr(FlexibleArgumentParser, "_search_keyword", None)
    # Read, not set: monkeypatch puts back what was there when it is undone.
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def help_text(capsys: pytest.CaptureFixture[str], option: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == 0
    return capsys.readouterr().out


def failure(
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
    expected: ExitStatus = ExitStatus.BAD_OPTION,
) -> str:
    """The line that a failing command line prints on stderr."""
    try:
        status: object = main(arguments)
    except SystemExit as error:
        status = error.code
    assert status == expected
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m server: ")
    return line


def test_help_shows_our_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys, "--help")
    positions = [text.index(f"\n  {option}") for option in (*OURS, "--host", "--port", *LIMITS)]
    assert positions == sorted(positions)
    assert positions[-1] < text.index("ModelConfig")
    assert len(text.splitlines()) < 105
    assert "passes" in text


def test_help_all_shows_the_options_of_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys, "--help=all")
    for option in (*OURS, "--tensor-parallel-size", "--api-key", "--gpu-memory-utilization"):
        assert option in text


def test_help_on_a_group_and_on_one_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--kv-cache-memory-bytes" in help_text(capsys, "--help=cacheconfig")
    text = help_text(capsys, "--help=max_model_len")
    assert "--max-model-len" in text
    assert "--max-thought-budget" not in text


def test_engine_options_are_passed_through() -> None:
    args = parse_arguments(
        ["some/model", "--max-num-seqs", "7", "--max_thought_budget=9", "--served-model-name", "x"]
    )
    assert (args.model, args.max_num_seqs, args.served_model_name) == ("some/model", 7, ["x"])
    assert thinking_options(args).max_thought_budget == 9


def test_the_default_threshold_is_the_checkpoints_unless_given() -> None:
    assert thinking_options(parse_arguments(["some/model"])).default_thought_threshold is None
    given = parse_arguments(["some/model", "--default-thought-threshold", "0"])
    assert thinking_options(given).default_thought_threshold == 0


@pytest.mark.parametrize(("text", "drafts"), [("auto", "auto"), ("off", 0), ("0", 0), ("7", 7)])
def test_drafts_of_thoughts(text: str, drafts: str | int) -> None:
    args = parse_arguments(["models/demo", "--speculative-thoughts", text])
    assert thinking_options(args).speculative_thoughts == drafts


@pytest.mark.parametrize(
    ("text", "drafts"), [("off", 0), ("on", "auto"), ("auto", "auto"), ("3", 3)]
)
def test_drafts_of_thoughts_in_a_file(tmp_path: Path, text: str, drafts: str | int) -> None:
    """YAML takes `off` for false."""
    config = tmp_path / "options.yaml"
    config.write_text(f"speculative-thoughts: {text}\n")
    args = parse_arguments(["some/model", "--config", str(config)])
    assert thinking_options(args).speculative_thoughts == drafts


def test_the_model_may_be_an_option() -> None:
    assert parse_arguments(["--model", "some/model"]).model == "some/model"
    assert parse_arguments(["some/model", "--model", "some/model"]).model == "some/model"


def test_options_can_come_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("max-thought-budget: 4\nallow-return-thoughts: true\nport: 81\n")
    args = parse_arguments(["some/model", "--config", str(config), "--port", "82"])
    assert thinking_options(args).max_thought_budget == 4
    assert args.allow_return_thoughts
    assert args.port == 82


def test_no_option_has_two_meanings() -> None:
    # argparse would refuse a second option of the same name; a destination it overwrites silently.
    by_destination: dict[str, list[str]] = {}
    for action in make_parser()._actions:
        by_destination.setdefault(action.dest, []).append(str(action.option_strings))
    doubled = {name: options for name, options in by_destination.items() if len(options) > 1}
    assert not doubled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which model?"),
        (["a", "--model", "b"], "two models, a and b"),
        (["a", "--max-thought-buget", "3"], "unrecognized arguments: --max-thought-buget"),
        (["a", "--max-thought-budget", "many"], "--max-thought-budget: invalid int value: 'many'"),
        (["a", "--max-thought-budget", "-1"], "--max-thought-budget is -1, must be 0 or more"),
        (["a", "--thought-embeddings", "odd"], "choose from"),
        (["a", "--speculative-thoughts", "on"], "'on' is neither auto nor off nor a number"),
        (["a", "--speculative-thoughts", "-1"], "'-1' is neither auto nor off nor a number"),
        (["a", "--port", "70000"], "70000 is not a port"),
        (["a", "--max-queued-requests", "-1"], "-1 is negative, must be 0 (no limit) or more"),
        (["a", "--request-timeout", "inf"], "inf must be 0 (no limit) or more seconds"),
        ([str(DEMO), "--default-thought-budget", "17"], "must be from 0 to 16"),
        ([str(DEMO), "--default-thought-temperature", "nan"], "must be a number from 0"),
        ([str(DEMO), "--prefill-context-parallel-size", "2"], "context parallelism"),
        ([str(DEMO), "--runner", "pooling"], "pooling"),
        ([str(DEMO), "--dtype", "float7"], "--dtype"),
        ([str(DEMO), "--port", "0", "--max-model-len", "9999999"], "max_model_len"),
        ([str(DEMO), "--port", "0", "--api-key", ""], "--api-key holds no key"),
        ([str(DEMO), "--port", "0", "--tokenizer", str(GOLDEN_MODEL)], "is not this model's"),
        (["a", "--alias", "deep"], "'deep' is not like NAME=budget:8,threshold:0.1"),
        (["a", "--usage", "all"], "--usage: invalid choice: 'all'"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in failure(capsys, *arguments)


@pytest.mark.parametrize(
    ("model", "message"), [("/nowhere", "/nowhere"), (str(ROOT / "tests"), "no config.json")]
)
def test_no_model_is_one_line(capsys: pytest.CaptureFixture[str], model: str, message: str) -> None:
    assert message in failure(capsys, model, expected=ExitStatus.NO_MODEL)


def test_a_key_file_without_keys_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "keys").touch()
    line = failure(capsys, str(DEMO), "--api-key-file", str(tmp_path / "keys"))
    assert "holds no key" in line


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(capsys, str(DEMO), "--port", str(port), expected=ExitStatus.ADDRESS_TAKEN)
    assert f"127.0.0.1 port {port}" in line


@pytest.mark.slow
def test_a_mistake_in_a_real_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server", "models/no-such-model"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "PATH": ""},
    )
    assert done.returncode == ExitStatus.NO_MODEL
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "models/no-such-model" in done.stderr


@pytest.mark.slow
def test_a_cache_larger_than_the_memory_is_one_line() -> None:
    """The engine's processes notice it, and print no tracebacks."""
    cache = ("--kv-cache-memory-bytes", str(1 << 50))
    done = subprocess.run(
        [*SERVER, str(DEMO), "--port", "0", "--enforce-eager", *cache],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == ExitStatus.OUT_OF_MEMORY, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "not enough memory: lower --kv-cache-memory-bytes" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A download into a file system of one megabyte, from a made-up hub."""
    mount = "mount -t tmpfs -o size=1m tmpfs"
    if subprocess.run(["unshare", "-rm", "sh", "-c", f"{mount} {tmp_path}"]).returncode:
        pytest.skip("nothing can be mounted here")
    with made_up_hub() as url:
        command = shlex.join([*SERVER, "someone/model", "--port", "0"])
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", f"{mount} {tmp_path} && exec {command}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path)},
        )
    assert done.returncode == ExitStatus.DISK_FULL, done.stderr
    assert "Traceback" not in done.stderr
    assert "make room, or point HF_HOME" in done.stderr.splitlines()[-1]
