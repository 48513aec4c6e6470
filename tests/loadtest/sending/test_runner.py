"""Whole load tests against a server whose every delay is known: what is measured is right."""

import statistics
from collections import Counter
from dataclasses import replace

import pytest

from loadtest.analysis.figures import figures
from loadtest.errors import LoadTestError
from loadtest.records import Cell, Record
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, running
from loadtest.traffic.budgets import parse_budgets
from loadtest.traffic.plan import Extent
from loadtest.traffic.thresholds import crossed
from tests.support.loadtest.runs import FIRST, GAP, SLACK, measured, run, run_one, small_plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("reused_workers")]


def test_the_servers_delays_are_measured(delayed_url: str) -> None:
    (plain, thinking) = run(small_plan(delayed_url, "closed:4", "0,2", requests=20))
    for cell, passes in ((plain, 1), (thinking, 3)):
        records = measured(cell)
        assert len(records) == 20
        assert not any(record.failure for record in records)
        assert all(record.visible_tokens == 5 for record in records)
        assert {record.thought_tokens for record in records} == {5 * (passes - 1)}
        first = [record.time_to_first_token or 0.0 for record in records]
        assert FIRST <= min(first) < FIRST + SLACK
        gaps = [record.time_per_visible_token or 0.0 for record in records]
        # Of a request whose first token came late, the others come the sooner after it.
        assert statistics.median(gaps) > passes * GAP - SLACK / 4
        assert min(gaps) < passes * GAP + SLACK / 4
        whole = [record.end_to_end for record in records]
        assert FIRST + 4 * passes * GAP <= min(whole) < FIRST + 4 * passes * GAP + SLACK


@pytest.mark.parametrize("requests", [1, 5])
def test_a_number_of_requests_counts_every_completion_and_every_token(
    delayed_url: str, requests: int
) -> None:
    cell = run_one(small_plan(delayed_url, "closed:2", requests=requests))
    found = figures(cell)
    assert found.completed_rate * found.seconds == pytest.approx(requests)
    assert found.visible_tokens_per_s * found.seconds == pytest.approx(5 * requests)
    assert found.seconds == pytest.approx(max(record.finished or 0.0 for record in cell.records))


def test_an_open_loop_sends_requests_when_they_are_due(url: str) -> None:
    cell = run_one(small_plan(url, "constant:20", requests=30))
    assert [record.scheduled for record in cell.records] == [n / 20 for n in range(30)]
    assert cell.window == (0, 1.5)
    assert cell.asked_rate == 20
    queued = [record.queued for record in cell.records]
    assert 0 <= min(queued) < 0.01


def test_a_stall_shows_in_the_tail_of_an_open_loop() -> None:
    """Coordinated omission: requests that were due in a stall of one second waited for its end.
    A closed loop of one user sees it once; an open loop with every request that was due."""
    # The first request is the probe's, so the cell's request number 20 is the one that stalls.
    with running(Behaviour(stall=(22, 1.0))) as url:
        cell = run_one(small_plan(url, "constant:40", requests=80, tokens="2"))
    stalled = cell.records[20]
    assert stalled.sent is not None
    end = stalled.sent + 1.0
    held = [record for record in cell.records if stalled.scheduled <= record.scheduled < end]
    assert len(held) >= 40
    for record in held:
        assert (record.time_to_first_token or 0.0) >= end - record.scheduled
    assert max(record.time_to_first_token or 0.0 for record in cell.records[:20]) < 1.0


def test_warmup_and_cooldown_are_marked_and_change_nothing_else(url: str) -> None:
    extent = Extent(seconds=0.5)
    plan = small_plan(url, "poisson:40", extent=extent)
    plain = run_one(plan)
    padded = run_one(replace(plan, extent=replace(extent, warmup=0.25, cooldown=0.25)))
    assert not any(record.warmup for record in plain.records)
    assert padded.window == (0.25, 0.75)
    for record in padded.records:
        assert record.warmup == (not 0.25 <= record.scheduled < 0.75)
        assert (record.index < 0) == (record.scheduled < 0.25)
    assert any(record.scheduled < 0.25 for record in padded.records)
    assert any(record.scheduled >= 0.75 for record in padded.records)
    assert what_was_asked(padded, shift=0.25) == what_was_asked(plain)


def what_was_asked(cell: Cell, shift: float = 0.0) -> list[tuple[object, ...]]:
    def of(record: Record) -> tuple[object, ...]:
        due = round(record.scheduled - shift, 9) if cell.asked_rate else None
        return record.index, due, record.budget, record.asked_tokens

    return sorted(map(of, measured(cell)))


@pytest.mark.parametrize("load", ["poisson:40", "closed:3"])
def test_the_same_seed_gives_the_same_requests_to_any_number_of_workers(
    url: str, load: str
) -> None:
    plan = small_plan(url, load, "0:0.5,1:0.5", requests=24, tokens="uniform:1-8", seed=7)
    alone = run_one(plan)
    shared = run_one(replace(plan, workers=2))
    other = run_one(replace(plan, seed=8))
    assert what_was_asked(alone) == what_was_asked(shared) != what_was_asked(other)
    assert {record.worker for record in shared.records} == {0, 1}
    assert shared.client is not None
    assert shared.client.workers == 2


def test_a_closed_loop_keeps_its_users_busy_and_no_more(delayed_url: str) -> None:
    cell = run_one(small_plan(delayed_url, "closed:3", requests=None, seconds=0.8, workers=2))
    assert cell.concurrency == 3
    assert cell.window == (0, 0.8)
    edges = sorted(
        edge
        for record in cell.records
        for edge in ((record.sent or 0.0, 1), (record.finished or 0.0, -1))
    )
    in_flight, most = 0, 0
    for _, change in edges:
        in_flight += change
        most = max(most, in_flight)
    assert most == 3
    assert all(record.scheduled < 0.8 for record in cell.records)


def test_a_mix_has_its_shares_and_each_request_its_own_thoughts(url: str) -> None:
    cell = run_one(small_plan(url, "constant:100", "0:0.5,1:0.5", requests=100, tokens="1"))
    budgets = Counter(record.budget for record in cell.records)
    assert 33 <= budgets[0] <= 67
    assert all(record.thought_tokens == record.budget for record in cell.records)
    assert cell.budgets == {"0": 0.5, "1": 0.5}


def test_tokens_of_one_chunk_arrive_together() -> None:
    with running(Behaviour(gap=GAP, tokens_per_chunk=3)) as url:
        cell = run_one(small_plan(url, requests=4, tokens="7"))
    for record in cell.records:
        assert record.failure is None
        chunks = Counter(record.token_times)
        assert [chunks[time] for time in sorted(chunks)] == [3, 3, 1]


def test_a_queue_at_the_client_counts_for_the_latency(delayed_url: str) -> None:
    plan = small_plan(delayed_url, "constant:100", requests=6, max_in_flight=1)
    records = run_one(plan).records
    # One at a time: each of 0.18 s waits for those before it.
    last = records[-1]
    assert last.queued >= 5 * (FIRST + 4 * GAP) - last.scheduled
    assert (last.time_to_first_token or 0.0) >= last.queued + FIRST


def test_a_ramp_ends_by_itself(url: str) -> None:
    plan = small_plan(url, "ramp:10-30@1s,steps=2", requests=None, seconds=60.0, tokens="1")
    cell = run_one(plan)
    assert cell.window == (0, 1)
    assert 5 <= len(cell.records) <= 40


def test_a_budget_over_the_maximum_is_refused_before_the_run(url: str) -> None:
    with pytest.raises(LoadTestError, match=r"budget 17 .* allows, 16.*--max-thought-budget 17"):
        prepare(small_plan(url, budgets="0,17"))


def test_a_stock_server_gets_no_budgets_and_one_cell() -> None:
    with running(Behaviour(max_thought_budget=None)) as url:
        prepared = prepare(small_plan(url, budgets="0,4", requests=4))
        (cell,) = run_cells(prepared, NoWatcher())
    assert "has no thought budgets" in prepared.warnings[0]
    assert cell.budgets == {"none": 1.0}
    assert {(record.budget, record.failure) for record in cell.records} == {(None, None)}


GATED = Behaviour(first=FIRST, gap=GAP, default_threshold=0.1, gains=(0.0, 0.3, 0.05, 0.0, 0.01))
"""Of an answer of five tokens: at 0.1 nats it thinks about the second, at 0.02 about the third too,
at 0.5 about none."""


@pytest.mark.parametrize("counts_passes", [True, False])
def test_passes_and_delays_behind_a_gate_are_measured(counts_passes: bool) -> None:
    with running(replace(GATED, counts_passes=counts_passes)) as url:
        budgets = crossed(parse_budgets("0,2"), (0.0, 0.02, 0.1, 0.5))
        cells = run(replace(small_plan(url, "closed:4", requests=8), budgets=budgets))
    seen = []
    for cell in cells:
        assert len(cell.records) == 8
        assert not [record for record in cell.records if record.failure], cell.records
        assert not [warning for warning in cell.warnings if "thought less" in warning]
        assert {record.threshold for record in cell.records} == {cell.threshold}
        ((budget,), (thoughts,), (tokens,), (passes,)) = (
            {getattr(record, name) for record in cell.records}
            for name in ("budget", "thoughts", "thought_tokens", "passes")
        )
        seen.append((budget, cell.threshold, thoughts, tokens, passes))
        found = figures(cell)
        assert found.passes_per_visible_token == passes / 5
        assert found.thought_share == thoughts / 5
        # The first token's passes come before it; those of the other four are between tokens.
        of_first = 1 if cell.threshold or budget == 0 else 3
        gaps = [record.time_per_visible_token or 0.0 for record in cell.records]
        expected = (passes - of_first) * GAP / 4
        assert expected - SLACK / 4 < statistics.median(gaps)
        assert min(gaps) < expected + SLACK / 4
    # Behind a gate a thought of two tokens is three passes beyond the visible token's own.
    assert seen == [
        (0, None, 0, 0, 5),
        (2, 0.0, 5, 10, 15),
        (2, 0.02, 2, 4, 11),
        (2, 0.1, 1, 2, 8),
        (2, 0.5, 0, 0, 5),
    ]


def test_the_servers_own_threshold_is_in_force_where_none_is_asked_for() -> None:
    with running(GATED) as url:
        cell = run_one(small_plan(url, budgets="2", requests=4))
    assert cell.threshold is None
    assert {(r.threshold, r.threshold_in_force, r.passes, r.failure) for r in cell.records} == {
        (None, 0.1, 8, None)
    }
    assert not [warning for warning in cell.warnings if "thought less" in warning]


def test_a_mix_behind_a_gate_is_one_cell_for_each_threshold() -> None:
    budgets = crossed(parse_budgets("0:1,2:1"), (0.0, 0.1))
    with running(replace(GATED, first=0.0, gap=0.0)) as url:
        cells = run(replace(small_plan(url, requests=30), budgets=budgets))
    assert [(cell.threshold, set(cell.budgets)) for cell in cells] == [
        (0.0, {"0", "2"}),
        (0.1, {"0", "2"}),
    ]
    for cell, passes in zip(cells, (15, 8), strict=True):
        seen = {(record.budget, record.threshold, record.passes) for record in cell.records}
        assert seen == {(0, None, 5), (2, cell.threshold, passes)}
        assert not any(record.failure for record in cell.records)


@pytest.mark.parametrize("most", [16, None])
def test_a_server_without_thresholds_gets_none_and_each_budget_once(most: int | None) -> None:
    # It refuses requests that have one.
    with running(Behaviour(max_thought_budget=most)) as url:
        plan = small_plan(url, requests=4)
        budgets = crossed(parse_budgets("0,2" if most else "none"), (0.0, 0.1))
        prepared = prepare(replace(plan, budgets=budgets))
        cells = list(run_cells(prepared, NoWatcher()))
    assert "has no thought thresholds" in prepared.warnings[0]
    assert "instead of with 0, 0.1" in prepared.warnings[0]
    assert len(cells) == (2 if most else 1)
    assert {cell.threshold for cell in cells} == {None}
    assert not [record for cell in cells for record in cell.records if record.failure]


def test_a_cell_in_which_nothing_was_due_says_so(url: str) -> None:
    plan = small_plan(url, "poisson:0.001", extent=Extent(seconds=0.1))
    assert "no request was due" in run_one(plan).warnings[0]
