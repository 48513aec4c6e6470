"""Options that cannot work are named before the engine starts."""

from pathlib import Path

import pytest

from server.cli import main, parse_arguments
from server.engine.option_checks import check_start_options
from server.errors import ExitStatus, StartError
from tests.support.servers import ROOT

MODEL = "models/demo"


def refusal(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The only line on standard error, with which the command line is refused."""
    with pytest.raises(SystemExit) as raised:
        main([MODEL, *options])
    assert raised.value.code == ExitStatus.BAD_OPTION
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--chat-template", "{% if %}"], "--chat-template, line 1: Expected an expression"),
        (["--enable-auto-tool-choice"], "needs a --tool-call-parser"),
        (["--tool-call-parser", "nobody"], "--tool-call-parser nobody is not known: "),
        (["--reasoning-parser", "nobody"], "--reasoning-parser nobody is not known: "),
        (["--middleware", "no.such"], "--middleware no.such is no class or function"),
        (["--middleware", "nothing"], "--middleware nothing is no class or function"),
        (["--middleware", "json.nothing"], "--middleware json.nothing is no class or function"),
        (["--worker-extension-cls", "no.Such"], "--worker-extension-cls no.Such is no class"),
        (["--logits-processors", "no.such:Thing"], "no.such:Thing is no class or function"),
        (["--logits-processors", "nothing"], "--logits-processors nothing is no class"),
        (["--logits-processors", "json:JSONDecoder"], "is no subclass of vLLM's LogitsProcessor"),
        (["--served-model-name", ""], "--served-model-name has an empty name"),
        (["--served-model-name", "a", ""], "--served-model-name has an empty name"),
        (["--chat-template", "/no/file.jinja"], "--chat-template: The supplied chat template"),
        (["--ssl-certfile", "/no/file"], "the certificate cannot be used"),
        (["--ssl-certfile", __file__], "the certificate cannot be used"),
        (["--ssl-keyfile", "/no/file"], "--ssl-keyfile needs an --ssl-certfile"),
    ],
)
def test_an_option_that_cannot_work_is_named(options: list[str], words: str) -> None:
    with pytest.raises(StartError) as raised:
        check_start_options(parse_arguments([MODEL, *options]))
    assert words in str(raised.value)
    assert raised.value.status == ExitStatus.BAD_OPTION


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}",
        # What transformers adds to jinja.
        "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}",
    ],
)
def test_templates_that_work_are_accepted(template: str) -> None:
    check_start_options(parse_arguments([MODEL, "--chat-template", template]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"options: [unfinished\n", "while parsing"),
        (b"port:\t1\n\tb: c", "while scanning"),
        (b"- a list\n", "should have a line like"),
        (b"text", "should have a line like"),
        (b"", "should have a line like"),
        (b"1: 2\n", "should have a line like"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"port:\nhost: a\n", "has no value for port"),
    ],
)
def test_a_file_without_options_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    file = tmp_path / "options.yaml"
    if content is not None:
        file.write_bytes(content)
    line = refusal(capsys, "--config", str(file))
    assert line.startswith("python -m server: --config is not a YAML file with options: ")
    assert reason in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--config"], "No config file specified"),
        (["--config", "/nowhere/a.yaml", "--config", "/nowhere/b.yaml"], "More than one"),
        (["--config", "/nowhere/a.txt"], "No such file"),
        (["--config", str(ROOT)], "Is a directory"),
    ],
)
def test_a_file_of_options_that_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert reason in refusal(capsys, *options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--structured-outputs-config.backend", "none"], "Input should be 'auto', 'xgrammar'"),
        (["--compilation-config", "{bad"], "Invalid JSON"),
        (["--override-generation-config", "{bad"], "cannot be converted to JSON"),
        (["--port", "x"], "x is not a port"),
    ],
)
def test_an_option_that_pydantic_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    line = refusal(capsys, *options)
    assert words in line
    assert "https://" not in line
