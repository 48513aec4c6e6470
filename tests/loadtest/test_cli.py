"""The program as its users call it, against a server whose every delay is known."""

import json
import resource
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.cli import main
from loadtest.reporting.results import load_run
from loadtest.scenarios import names
from loadtest.testserver import Behaviour, running

pytestmark = pytest.mark.slow

QUICK = ["--requests", "20", "--warmup", "0", "--output-tokens", "8"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Behaviour(first=0.002, gap=0.001)) as url:
        yield url


def test_a_run_leaves_a_folder_with_everything(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    arguments = ["--url", url, "--budgets", "0,4", "--load", "closed:2", "poisson:50"]
    assert main([*arguments, *QUICK, "--repeats", "2", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"report: {folder / 'report.html'}" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        *("report.html", "requests.jsonl", "run.json", "summary.csv")
    ]
    run = load_run(folder)
    assert len(run.cells) == 2 * 2 * 2
    assert all(len(cell.records) == 20 and not cell.partial for cell in run.cells)
    assert run.command[:3] == ["python", "-m", "loadtest"]
    # The command that the report gives repeats it.
    assert shlex.join(run.command[4:]) in (folder / "report.html").read_text()


@pytest.mark.usefixtures("reused_workers")
def test_the_report_can_be_written_again(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    assert main(["--url", url, "--budgets", "0", *QUICK, "--out", str(folder)]) == 0
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert main(["report", str(folder / "run.json")]) == 0
    assert (folder / "report.html").read_text() == before


@pytest.mark.usefixtures("reused_workers")
def test_accuracy_is_measured_under_load(url: str, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    said = " ".join(["word"] * 4)
    lines = [{"prompt": "say it", "expected": text, "max_tokens": 4} for text in (said, "other")]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "results"
    arguments = ["--url", url, "--budgets", "0", "--answers", str(answers), "--out", str(folder)]
    assert main([*arguments, "--requests", "20", "--warmup", "0"]) == 0
    figures = json.loads((folder / "run.json").read_text())["cells"][0]["figures"]["all"]
    assert figures["accuracy"] == 0.5


@pytest.mark.usefixtures("reused_workers")
def test_thresholds_are_crossed_with_budgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    said = " ".join(["word"] * 5)
    lines = [{"prompt": "say it", "expected": text, "max_tokens": 5} for text in (said, "other")]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "results"
    thinking = ["--budgets", "0,4", "--thresholds", "0,0.1,0.5", "--answers", str(answers)]
    gains = (0.0, 0.3, 0.05, 0.0, 0.01)
    with running(Behaviour(gap=0.001, default_threshold=0.1, gains=gains)) as url:
        extent = ["--requests", "20", "--warmup", "0", "--out", str(folder)]
        assert main(["--url", url, *thinking, *extent]) == 0
    out = capsys.readouterr().out.splitlines()
    (heads,) = (line.split() for line in out if "passes per token" in line)
    assert heads[:3] == ["budget", "threshold", "cost"]
    # Nothing buys anything here: not to think is the cheapest.
    enough = (
        "The cheapest setting within 1 point of the best accuracy: b = 0, 50.0% right for 1 pass"
    )
    assert f"{enough} per visible token." in out
    cells = json.loads((folder / "run.json").read_text())["cells"]
    passes = {
        (*cell["budgets"], cell["threshold"]): cell["figures"]["all"]["passes_per_visible_token"]
        for cell in cells
    }
    # At 0.1 nats one token of five is thought about, in five passes beyond its own.
    assert passes == {("0", None): 1, ("4", 0.0): 5, ("4", 0.1): 2, ("4", 0.5): 1}
    assert enough in (folder / "report.html").read_text()


@pytest.mark.usefixtures("reused_workers")
def test_a_search_reports_the_highest_rate(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slo = ["--slo", "p95 time_to_first_token<=5s", "--start-rate", "50", "--max-rate", "100"]
    arguments = ["search", "--url", url, "--budgets", "0", *slo, "--requests", "30"]
    folder = tmp_path / "results"
    assert main([*arguments, "--warmup", "0", "--out", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    # Holds at 100, unless this machine is too busy to send as fast: then it says that.
    (found,) = (line for line in out if line.startswith("budget 0: "))
    assert "holds at 100 requests per second" in found or "limited by the client" in found
    assert found in (folder / "report.html").read_text()


@contextmanager
def files_of_at_most(number: int) -> Iterator[None]:
    """Files of this process take no more bytes: the kernel refuses them as it would on a full disk,
    only that it calls them too large."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("reused_workers")
def test_a_full_disk_is_reported_and_costs_only_what_came_after(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    arguments = ["--url", url, "--budgets", "0,4", "--requests", "100", "--warmup", "0"]
    with files_of_at_most(30_000):
        assert main([*arguments, "--output-tokens", "32", "--out", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "File too large; what follows was measured, but not all of it is in the files" in out
    assert "visible tokens/s" in out
    assert f"once there is room, `python -m loadtest report {folder}`" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        *("requests.jsonl", "run.json", "summary.csv")
    ]
    (cell,) = load_run(folder).cells  # the second one was not begun
    assert cell.partial
    assert 10 <= len(cell.records) < 100
    assert main(["report", str(folder)]) == 0
    assert "cut short" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no command 'nonsense'"),
        (["--budgets", "0"], "--url"),
        (["--url", "{url}", "--budgets", "many"], "'many' is no whole number"),
        (["--url", "{url}", "--thresholds", "0,-1"], "'-1' is no number of nats from 0 up"),
        (["--url", "{url}", "--thresholds", "nan"], "'nan' is no number of nats from 0 up"),
        (["--url", "{url}", "--thresholds", "low"], "'low' is no number of nats from 0 up"),
        (["--url", "{url}", "--thresholds", "0.1,0.1"], "0.1 is there twice"),
        (["--url", "{url}", "--slo", "fast"], "'fast' is no service level"),
        (["--url", "{url}", "--slo", "p97 end_to_end<=1s"], "p97 is none of"),
        (["--url", "{url}", "--duration", "0"], "'0' is not a number above 0"),
        (["--url", "{url}", "--answers", "nowhere"], "no such file"),
        (["--url", "{url}", "--body", "[]"], "is no JSON object"),
        (["--url", "{url}", "--header", "X-Team"], "'X-Team' is no header"),
        (["--url", "{url}", "--header", "X Team: a"], "'X Team: a' is no header"),
        (["--url", "{url}", "--out", "{folder}", "--budgets", "0"], "never overwritten"),
        (["--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (["scenario", "none", "--url", "{url}"], "no scenario 'none'"),
        (["search", "--url", "{url}"], "--slo"),
        (["report", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    url: str,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([text.format(url=url, folder=tmp_path) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_help_has_examples_and_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "python -m loadtest --url" in out
    for command in ("run", "sweep", "search", "scenario", "soak", "compare", "report", "capacity"):
        assert f"\n  {command} " in out
        if command != "scenario":
            with pytest.raises(SystemExit):
                main([command, "--help"])
    capsys.readouterr()
    assert main(["scenario", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names())


@pytest.mark.usefixtures("reused_workers")
def test_the_key_is_in_no_file(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    keys = ["--api-key", "hush-hush", "--header", "X-Key: hush-hush", "--header=X-Two: hush-hush"]
    arguments = ["--url", url, "--budgets", "0", *keys, *QUICK]
    assert main([*arguments, "--out", str(folder)]) == 0
    assert not any("hush-hush" in path.read_text() for path in folder.iterdir())
