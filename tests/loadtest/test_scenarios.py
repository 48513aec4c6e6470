"""Recipes are commands that work."""

import json
from pathlib import Path

import pytest

from loadtest.cli import main
from loadtest.reporting.results import load_run
from loadtest.scenarios import load_scenario, names

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("reused_workers")]


@pytest.mark.parametrize("name", names())
def test_every_scenario_runs(name: str, url: str, tmp_path: Path) -> None:
    # The ramp begins with one request per second: its first request ends the cell.
    requests, seconds = ("1", "3") if name == "overload" else ("8", "0.5")
    short = ["--duration", seconds, "--warmup", "0", "--cooldown", "0", "--repeats", "1"]
    short += ["--requests", requests]
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"prompt": "x", "expected": "y", "max_tokens": 2}) + "\n")
    if "answers" in load_scenario(name).options:
        short += ["--answers", str(answers)]
    out = tmp_path / "results"
    assert main(["scenario", name, "--url", url, *short, "--out", str(out)]) == 0
    assert load_run(out).scenario == name
