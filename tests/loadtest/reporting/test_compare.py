"""Runs side by side, and the exit status by which a pipeline stops."""

from pathlib import Path

import pytest

from loadtest.cli import main
from loadtest.records import Failure, Run
from tests.support.loadtest.records import (
    as_version_1,
    gated,
    made_cell,
    made_record,
    made_run,
    written,
)


def run_with(label: str, per_token: float, repeats: int = 3, jitter: float = 0.02) -> Run:
    """Repeats whose time per visible token differs by `jitter` from one to the next."""
    cells = [
        made_cell(
            [
                made_record(n, n / 10, per_token=per_token * (1 + jitter * (repeat - 1)))
                for n in range(100)
            ],
            (0.0, 10.0),
            repeat=repeat,
        )
        for repeat in range(repeats)
    ]
    return made_run(cells, label)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, str]:
    made = {
        "base": run_with("base", 0.010),
        "same": run_with("same", 0.0101),
        "slow": run_with("slow", 0.013),
        "noisy": run_with("noisy", 0.013, jitter=0.3),
        "single": run_with("single", 0.013, repeats=1, jitter=0.0),
    }
    return {name: str(written(run, tmp_path / name)) for name, run in made.items()}


TOLERANCE = "mean time_per_visible_token=10%"


@pytest.mark.parametrize(
    ("other", "status"), [("same", 0), ("slow", 1), ("noisy", 0), ("single", 1)]
)
def test_only_a_regression_beyond_tolerance_and_chance_fails(
    runs: dict[str, str], other: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", runs["base"], runs[other], "--fail-on", TOLERANCE]) == status
    out = capsys.readouterr().out
    assert ("regression: budget 0, constant:10: mean time_per_visible_token" in out) is bool(status)
    assert ("+30.0 %" in out) is (other != "same")
    assert "(noise)" in out or other in ("single", "slow")


def test_better_is_no_regression(runs: dict[str, str]) -> None:
    assert main(["compare", runs["slow"], runs["base"], "--fail-on", TOLERANCE]) == 0


def test_a_figure_that_is_gone_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [made_record(n, n / 10) for n in range(100)]
    bad = [made_record(n, n / 10, 4, failure=Failure.TIMEOUT) for n in range(100)]
    thinking = [made_record(n, n / 10, 4) for n in range(100)]
    window, budget = (0.0, 10.0), {"4": 1.0}
    before = made_run([made_cell(good, window), made_cell(thinking, window, budget)], "before")
    after = made_run([made_cell(good, window), made_cell(bad, window, budget)], "after")
    shorter = made_run([made_cell(good, window)], "shorter")
    base = str(written(before, tmp_path / "before"))
    for run in (after, shorter):
        other = str(written(run, tmp_path / run.label))
        assert main(["compare", base, other, "--fail-on", TOLERANCE]) == 1
        gone = f"budget 4, constant:10: mean time_per_visible_token was not measured in {run.label}"
        assert gone in capsys.readouterr().out
        assert main(["compare", base, other]) == 0


def test_a_figure_that_is_gone_in_some_repeats_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = run_with("before", 0.01), run_with("after", 0.01)
    failed = [made_record(n, n / 10, failure=Failure.TIMEOUT) for n in range(100)]
    after.cells[1] = made_cell(failed, (0.0, 10.0), repeat=1)
    folders = [str(written(run, tmp_path / run.label)) for run in (before, after)]
    assert main(["compare", *folders, "--fail-on", TOLERANCE]) == 1
    out = capsys.readouterr().out
    assert "mean time_per_visible_token was not measured in 1 of 3 repeats of after" in out
    (line,) = (line for line in out.splitlines() if " mean time_per_visible_token" in line[:60])
    assert "(2 of 3)" in line


def test_without_a_tolerance_nothing_fails(runs: dict[str, str]) -> None:
    assert main(["compare", runs["base"], runs["slow"]]) == 0


def test_runs_of_one_label_are_repeats(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    three = [runs["base"], runs["single"], runs["slow"]]
    assert main(["compare", *three, "--labels", "before", "after", "after"]) == 0
    head = capsys.readouterr().out.splitlines()[0].split()
    assert head == ["budget", "load", "figure", "before", "after", "change"]


def test_rows_of_different_thresholds_are_not_taken_for_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = made_run(gated(), "before"), made_run(gated()[:-1], "after")
    after.cells = [cell for cell in after.cells if cell.threshold != 0.5]
    base = str(written(before, tmp_path / "before"))
    other = str(written(after, tmp_path / "after"))
    assert main(["compare", base, other, "--fail-on", TOLERANCE]) == 1
    out = capsys.readouterr().out
    lost = "budget 8, threshold 0.5, constant:10: mean time_per_visible_token was not measured"
    assert f"regression: {lost} in after" in out
    assert out.count("regression") == 1
    assert out.splitlines()[0].split() == [
        *("budget", "threshold", "load", "figure", "before", "after", "change")
    ]
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines if "passes_per_visible_token" in line] == [
        *(["0", "–"], ["8", "0"], ["8", "0.1"], ["8", "0.5"])
    ]


def test_results_of_the_first_schema_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have no thresholds: their rows are those with which none was sent."""
    old = str(as_version_1(written(run_with("old", 0.010), tmp_path / "old")))
    slow = str(written(run_with("slow", 0.013), tmp_path / "slow"))
    assert main(["compare", old, slow, "--fail-on", TOLERANCE]) == 1
    assert "threshold" not in capsys.readouterr().out
    new = str(written(made_run(gated(), "new"), tmp_path / "new"))
    assert main(["compare", old, new]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {tuple(line[:2]) for line in lines[1:]} == {("0", "constant:10")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{base}"], "needs two runs"),
        (["{base}", "{base}"], "repeats of one"),
        (["{base}", "{slow}", "--fail-on", "speed=10%"], "'speed' is none of"),
        (["{base}", "{slow}", "--fail-on", "accuracy"], "is no tolerance"),
        (["{base}", "{slow}", "--labels", "one"], "1 --labels for 2 runs"),
        (["{base}", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    runs: dict[str, str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", *(text.format(**runs) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
