"""A server's first minute beside its second."""

import json
from pathlib import Path

import pytest

from benchmarks.first_minute import (
    KINDS,
    Answered,
    first_minute_command,
    kind_times,
    path_and_body,
    texts,
    times_table,
)
from tests.support.servers import RunningServer


@pytest.mark.slow
def test_a_row_for_every_kind(
    demo_server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    options = ["--seconds", "0.001", "--users", "2", "--json", str(file)]
    assert first_minute_command([demo_server.url, *options]) == 0
    head, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("load average")
    assert [row.split("|")[1].strip() for row in rows] == list(KINDS)
    figures = json.loads(file.read_text())
    assert figures["users"] == 2
    for line in figures["results"]:
        # Each user sent each kind once, however short the minute was.
        assert line["number"] == 2
        assert line["slowest"] > 0
        assert line["ratio_later"] >= 1


@pytest.mark.slow
def test_a_refused_request_is_one_line(
    demo_server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(KINDS, "default", {"thought_budget": 999})
    assert first_minute_command([demo_server.url, "--seconds", "0.001", "--users", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "default: 400" in line
    assert "999" in line


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1", "http://["])
def test_a_url_where_nothing_answers_is_one_line(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert first_minute_command([url, "--users", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert url in line


@pytest.mark.parametrize(
    "options", [[], ["URL", "--seconds", "0"], ["URL", "--seconds", "nan"], ["URL", "--users", "0"]]
)
def test_wrong_options_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        first_minute_command(options)
    assert stopped.value.code == 2


def test_the_slowest_is_held_against_the_median_of_its_kind_later() -> None:
    first = [Answered(kind, 1.0 + number, 0.1 + number) for kind in KINDS for number in (0, 2, 1)]
    second = [Answered(kind, 60.0, seconds) for kind in KINDS for seconds in (0.5, 1.0, 3.0)]
    lines = kind_times(first, second)
    assert [line.kind for line in lines] == list(KINDS)
    for line in lines:
        assert (line.number, line.slowest, line.at_seconds) == (3, 2100.0, 3.0)
        assert (line.median_later, line.slowest_later) == (1000.0, 3000.0)
        assert (line.ratio, line.ratio_later) == (2.1, 3.0)
    cells = [cell.strip() for cell in times_table(lines).splitlines()[2].split("|")]
    assert cells[1:6] == ["default", "3", "2100", "3.0", "1000"]
    assert cells[6:-1] == ["3000", "2.10", "3.00", "≤ 3", "yes"]


def test_all_requests_of_a_kind_do_the_same_work_with_other_texts() -> None:
    prompts = texts(0)
    for kind in KINDS:
        path, body = path_and_body(kind, first := next(prompts))
        assert body["ignore_eos"]
        assert body["max_tokens"] == (1 if body.get("echo") else 16)
        assert (path == "/v1/chat/completions") == ("messages" in body) == ("prompt" not in body)
        assert first != next(prompts)
