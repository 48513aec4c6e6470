"""Several servers of one model: requests are spread, figures are those of each and of all."""

import csv
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.analysis.summary import summarise
from loadtest.cli import main
from loadtest.errors import LoadTestError
from loadtest.reporting.results import load_run
from loadtest.sending.runner import prepare
from loadtest.testserver import Behaviour, running
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import PromptPlan, Target
from tests.support.loadtest.runs import FIRST, GAP, SLACK, run_one, small_plan

pytestmark = pytest.mark.usefixtures("reused_workers")

QUICK = ["--budgets", "0", "--warmup", "0", "--output-tokens", "5"]


@pytest.mark.slow
@pytest.mark.parametrize("load", ["closed:4", "constant:60"])
def test_requests_are_spread_and_each_server_has_figures(
    url: str, delayed_url: str, load: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    arguments = ["--url", url, "--url", f"{delayed_url}/v1", *QUICK, "--load", load]
    assert main([*arguments, "--requests", "24", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    run = load_run(folder)
    assert run.urls == [url, delayed_url]
    (cell,) = run.cells
    assert Counter(record.server for record in cell.records) == {0: 12, 1: 12}
    # A request takes 0.1 s to the first token there, and 20 ms for each further one.
    for record in cell.records:
        if record.server == 1:
            assert record.finished is not None
            assert record.finished - record.scheduled >= FIRST + 4 * GAP
    (found,) = summarise(run).loads
    (together,) = found.rows
    at_once, delayed = found.by_server
    assert [row.repeats[0].requests for row in (together, at_once, delayed)] == [24, 12, 12]
    assert at_once.repeats[0].latencies["time_to_first_token"].least < SLACK
    assert delayed.repeats[0].latencies["time_to_first_token"].least >= FIRST
    # Both servers' counters are in the sum: a first, short request each is before it.
    before, after = cell.server["vllm:request_success_total"]
    assert after - before == 24
    for text in (out, (folder / "report.html").read_text()):
        assert all(one in text for one in run.urls)
    with (folder / "summary.csv").open(newline="") as lines:
        rows = {row["load"]: row["requests"] for row in csv.DictReader(lines)}
    assert rows == {load: "24", f"{load}, at {url}": "12", f"{load}, at {delayed_url}": "12"}
    # Together they are compared with a single server under the same load.
    alone = tmp_path / "alone"
    single = ["--url", url, *QUICK, "--load", load, "--requests", "24", "--label", "alone"]
    assert main([*single, "--out", str(alone)]) == 0
    capsys.readouterr()
    assert main(["compare", str(alone), str(folder)]) == 0
    compared = [line.split() for line in capsys.readouterr().out.splitlines()]
    (shown,) = [line for line in compared if line[:2] == ["0", load] and "failure_share" in line]
    assert shown[3:] == ["0.0", "%", "0.0", "%", "+0.0", "points"]


@pytest.mark.slow
def test_a_server_that_fails_is_named_and_the_others_go_on(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    # Its first answer is that to the short request beforehand.
    with running(Behaviour(die_after=8)) as dying:
        arguments = ["--url", url, "--url", dying, *QUICK, "--requests", "60", "--load", "closed:2"]
        assert main([*arguments, "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    (cell,) = load_run(folder).cells
    assert not cell.partial
    failed = [record for record in cell.records if record.failure]
    assert {record.server for record in failed} == {1}
    assert 20 < len(failed) < 30
    assert f"at {dying}: {len(failed)} of 30 requests failed (" in out
    assert f"at {url}: " not in out
    assert f"at {dying}: {len(failed)} of 30" in (folder / "report.html").read_text()


def test_a_server_that_cannot_be_reached_is_named_before_anything_is_measured(url: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(LoadTestError, match=f"no server answers at {gone}"):
            prepare(small_plan(url, target=Target(url, replicas=(gone,))))


def test_servers_that_are_not_alike_are_refused(url: str) -> None:
    with (
        running(Behaviour(max_thought_budget=None)) as other,
        pytest.raises(LoadTestError, match=f"{other} is not like {url}.* max thought budget"),
    ):
        prepare(small_plan(url, target=Target(url, replicas=(other,))))


def test_a_server_that_is_there_twice_is_refused(url: str) -> None:
    with pytest.raises(LoadTestError, match=f"--url {url} is there twice"):
        prepare(small_plan(url, target=Target(url, replicas=(f"{url}/v1/completions",))))


@pytest.mark.slow
def test_a_session_stays_with_its_server(url: str, delayed_url: str) -> None:
    """Its beginning is in that server's prefix cache."""
    target = Target(url, replicas=(delayed_url,))
    prompts = PromptPlan(output_lengths=Constant(2), turns=3)
    plan = small_plan(url, "closed:4", target=target, prompts=prompts, requests=24)
    cell = run_one(replace(plan, workers=2))
    assert {(record.index // 3 % 2, record.server) for record in cell.records} == {(0, 0), (1, 1)}
