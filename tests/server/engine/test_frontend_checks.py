"""Options that cannot work are named before the engine starts."""

from pathlib import Path

import pytest

from server.cli import main, parse_arguments
from server.engine.frontend_checks import check_frontend
from server.errors import ExitStatus, StartError

MODEL = "models/demo"


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
        (["--ssl-certfile", "/no/file"], "the certificate cannot be used"),
        (["--ssl-certfile", __file__], "the certificate cannot be used"),
        (["--ssl-keyfile", "/no/file"], "--ssl-keyfile needs an --ssl-certfile"),
    ],
)
def test_an_option_that_cannot_work_is_named(options: list[str], words: str) -> None:
    with pytest.raises(StartError) as raised:
        check_frontend(parse_arguments([MODEL, *options]))
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
    check_frontend(parse_arguments([MODEL, "--chat-template", template]))


@pytest.mark.parametrize("content", [None, "options: [unfinished\n", "- a list\n"])
def test_a_file_without_options_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "options.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as raised:
        main([MODEL, "--config", str(file)])
    assert raised.value.code == ExitStatus.BAD_OPTION
    # vLLM may log a line of its own before.
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m server: --config is not a YAML file with options: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--structured-outputs-config.backend", "none"], "Input should be 'auto', 'xgrammar'"),
        (["--compilation-config", "{bad"], "Invalid JSON"),
    ],
)
def test_an_option_that_pydantic_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([MODEL, *options])
    assert raised.value.code == ExitStatus.BAD_OPTION
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "https://" not in line
