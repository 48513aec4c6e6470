"""What is measured is right: against a server whose every delay is known."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.records import Cell, Record
from loadtest.sending.progress import Phase
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, running
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import Extent
from tests.support.loadtest.runs import Watcher, measured, prompts_file, run, run_one, small_plan

FIRST, GAP = 0.1, 0.02
# Delays are lower bounds: a busy machine can only add to them. Half of the requests of a machine
# that is not out of its mind come with less than this on top.
SLACK = 0.05


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that needs 100 ms to the first token and 20 ms per pass."""
    with running(Behaviour(first=FIRST, gap=GAP)) as url:
        yield url


def test_the_servers_delays_are_measured(url: str) -> None:
    (plain, thinking) = run(small_plan(url, "closed:4", "0,2", requests=20))
    for cell, passes in ((plain, 1), (thinking, 3)):
        records = measured(cell)
        assert len(records) == 20
        assert not any(record.failure for record in records)
        assert all(record.visible_tokens == 5 for record in records)
        assert {record.thought_tokens for record in records} == {5 * (passes - 1)}
        first = [record.time_to_first_token for record in records]
        assert min(first) >= FIRST
        assert statistics.median(first) < FIRST + SLACK
        gaps = [record.time_per_visible_token or 0.0 for record in records]
        assert statistics.median(gaps) == pytest.approx(passes * GAP, abs=SLACK / 4)
        whole = [record.end_to_end for record in records]
        assert min(whole) >= FIRST + 4 * passes * GAP
        assert statistics.median(whole) < FIRST + 4 * passes * GAP + SLACK


def test_an_open_loop_sends_when_it_said_it_would(url: str) -> None:
    cell = run_one(small_plan(url, "constant:20", requests=30))
    assert [record.scheduled for record in cell.records] == [n / 20 for n in range(30)]
    assert cell.window == (0, 1.5)
    assert cell.asked_rate == 20
    queued = [record.queued for record in cell.records]
    assert min(queued) >= 0
    assert statistics.median(queued) < 0.01


def test_a_stall_shows_in_the_tail_of_an_open_loop() -> None:
    """Coordinated omission: requests that were due in a stall of one second waited for its end.
    A closed loop of one user sees it once; an open loop with every request that was due."""
    # The first request is the probe's, the 21st the one that is due after half a second.
    with running(Behaviour(stall=(22, 1.0))) as url:
        cell = run_one(small_plan(url, "constant:40", requests=80, tokens="2"))
    stalled = cell.records[20]
    assert stalled.sent is not None
    end = stalled.sent + 1.0
    held = [record for record in cell.records if stalled.scheduled <= record.scheduled < end]
    assert len(held) >= 40
    for record in held:
        assert record.time_to_first_token >= end - record.scheduled
    assert max(record.time_to_first_token for record in cell.records[:20]) < 1.0


def test_warmup_and_cooldown_are_marked_and_change_nothing_else(url: str) -> None:
    extent = Extent(seconds=1.0)
    plan = small_plan(url, "poisson:20", extent=extent)
    plain = run_one(plan)
    padded = run_one(replace(plan, extent=replace(extent, warmup=0.5, cooldown=0.5)))
    assert not any(record.warmup for record in plain.records)
    assert padded.window == (0.5, 1.5)
    for record in padded.records:
        assert record.warmup == (not 0.5 <= record.scheduled < 1.5)
        assert (record.index < 0) == (record.scheduled < 0.5)
    assert any(record.scheduled < 0.5 for record in padded.records)
    assert any(record.scheduled >= 1.5 for record in padded.records)
    assert what_was_asked(padded, shift=0.5) == what_was_asked(plain)


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


def test_a_closed_loop_keeps_its_users_busy_and_no_more(url: str) -> None:
    cell = run_one(small_plan(url, "closed:3", requests=None, seconds=1.5, workers=2))
    assert cell.concurrency == 3
    assert cell.window == (0, 1.5)
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
    assert all(record.scheduled < 1.5 for record in cell.records)


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


def test_a_queue_at_the_client_is_charged_to_the_request(url: str) -> None:
    plan = small_plan(url, "constant:100", requests=6, max_in_flight=1)
    records = run_one(plan).records
    # One at a time: each of 0.18 s waits for those before it.
    last = records[-1]
    assert last.queued >= 5 * (FIRST + 4 * GAP) - last.scheduled
    assert last.time_to_first_token >= last.queued + FIRST


def test_a_watcher_sees_every_record_once(url: str) -> None:
    watcher = Watcher()
    plan = small_plan(url, "constant:10", extent=Extent(seconds=1.0, warmup=0.6))
    (cell,) = run_cells(prepare(plan), watcher)
    seen = [record.index for snapshot in watcher.snapshots for record in snapshot.fresh]
    assert sorted(seen) == sorted(record.index for record in cell.records)
    assert watcher.snapshots[0].phase is Phase.WARMUP
    assert watcher.snapshots[-1].phase is Phase.DRAINING
    last = watcher.snapshots[-1]
    assert (last.due, last.sent, last.finished, last.in_flight) == (16, 16, 16, 0)


def test_the_servers_counters_are_read_before_and_after(url: str) -> None:
    cell = run_one(small_plan(url, requests=10))
    before, after = cell.server["vllm:request_success_total"]
    assert after - before == 10


def test_the_servers_batch_is_looked_at_while_the_cell_runs(url: str) -> None:
    cell = run_one(small_plan(url, "closed:3", requests=None, seconds=2.5))
    during = [sample.running for sample in cell.occupancy if 0 < sample.time < 2.5]
    assert during
    assert max(during) in (2, 3)  # one of them may be between two requests
    assert {sample.waiting for sample in cell.occupancy} == {0}


def test_the_client_says_how_it_fared(url: str) -> None:
    cell = run_one(small_plan(url, requests=10))
    assert cell.client is not None
    assert 0 < cell.client.loop_lag_p99 <= cell.client.loop_lag_max
    assert 0 < cell.client.cpu_share_max < 1


def test_megabytes_pass_between_the_processes(tmp_path: Path) -> None:
    """Prompts on their way to a worker, token times on their way back."""
    texts = [f"{number} {'word ' * 200}" for number in range(2000)]
    prompts = replace(prompts_file(tmp_path, *texts), output_lengths=Constant(20_000))
    with running() as url:
        cell = run_one(small_plan(url, prompts=prompts, requests=8))
    assert [record.visible_tokens for record in cell.records] == [20_000] * 8


def test_a_ramp_ends_by_itself(url: str) -> None:
    plan = small_plan(url, "ramp:10-30@1s,steps=2", requests=None, seconds=60.0, tokens="1")
    cell = run_one(plan)
    assert cell.window == (0, 1)
    assert 5 <= len(cell.records) <= 40
