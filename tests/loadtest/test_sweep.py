"""The knee of a server of known capacity."""

from pathlib import Path

import pytest

from loadtest.analysis.summary import summarise
from loadtest.analysis.units import three_digits
from loadtest.cli import main
from loadtest.reporting.results import load_run
from loadtest.testserver import Behaviour, running

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("reused_workers")]


def test_a_sweep_finds_the_knee_without_a_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four answers at once of 0.1 s: alone 10 per second, at most 40, and so a ramp up to 48."""
    folder = tmp_path / "results"
    with running(Behaviour(first=0.1, slots=4)) as url:
        arguments = ["sweep", "--url", url, "--budgets", "0", "--duration", "4", "--users", "16"]
        more = ["--warmup", "0.5", "--output-tokens", "1", "--steps", "3", "--drain", "1"]
        assert main([*arguments, *more, "--repeats", "2", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    alone, most, ramp = summarise(load_run(folder)).loads
    assert (alone.load, most.load) == ("closed:1", "closed:16")
    rates = [load.rows[0].figure("completed_rate") for load in (alone, most)]
    # A busy machine can only make it slower.
    assert all(
        0 < rate.mean <= most for rate, most in zip(rates, (10.1, 40.5), strict=True) if rate
    )
    assert len(ramp.rows[0].cells) == 2
    first, middle, last = (row.rate or 0.0 for row in ramp.steps)
    assert first == pytest.approx(rates[0].values[0] if rates[0] else 0.0, rel=0.01)
    assert last == pytest.approx(1.2 * (rates[1].values[0] if rates[1] else 0.0), rel=0.01)
    (held,) = (line for line in out.splitlines() if line.startswith("budget 0: held at"))
    at_middle = ramp.steps[1]
    due, done = (at_middle.figure(name) for name in ("due_rate", "completed_rate"))
    # On a busy machine the test server itself may fall behind earlier.
    kept_up = due is not None and done is not None and done.mean >= 0.95 * due.mean
    if last > 1.1 * 40 and kept_up:  # found its true capacity
        expected = f"held at {three_digits(middle)} requests per second, broke at "
        assert held.startswith(f"budget 0: {expected}{three_digits(last)}")
    assert held in (folder / "report.html").read_text()


def test_a_sweep_measures_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--url", "http://localhost", "--requests", "5"]) == 2
    assert "--duration" in capsys.readouterr().err
