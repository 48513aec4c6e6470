"""Figures of records whose figures are known."""

import pytest

from loadtest.analysis.figures import figures
from loadtest.analysis.intervals import Share
from loadtest.analysis.levels import parse_level
from loadtest.records import Failure
from tests.support.loadtest.records import PASS_SECONDS, made_cell, made_record, mixed


def test_known_records_give_exact_figures() -> None:
    records = [
        made_record(-1, -1.0, first=0.5, per_token=0.1, warmup=True),  # tokens to 0.5
        made_record(0, 0.0, 4, first=0.25, per_token=0.05, queued=0.1, correct=True),
        made_record(1, 1.0, 4, first=0.75, per_token=0.05, correct=False),
        made_record(2, 9.5, 4, first=0.25, per_token=0.05),  # tokens to 10.25
        made_record(3, 5.0, 4, failure=Failure.REFUSED),
        made_record(4, 6.0, 4, failure=Failure.CUT),
    ]
    found = figures(
        made_cell(records, (0.0, 10.0), {"4": 1.0}), [parse_level("p95 time_to_first_token<=500ms")]
    )
    assert (found.requests, found.succeeded, found.cut_short) == (4, 3, 1)
    assert found.failures == {"refused": 1}
    assert found.failure_share == 0.25
    first = found.latencies["time_to_first_token"]
    assert (first.count, first.least, first.greatest) == (3, 0.25, 0.75)
    per_token = found.latencies["time_per_visible_token"]
    assert per_token.mean == pytest.approx(0.05)
    assert found.latencies["inter_token_gap"].count == 30
    assert found.latencies["end_to_end"].greatest == pytest.approx(1.25)
    assert found.latencies["client_queueing"].greatest == pytest.approx(0.1)
    # In the window: 6 of the warm-up's tokens (0.0 to 0.5), 11, 11, and 5 (9.75 to 9.95).
    assert found.visible_tokens_per_s == pytest.approx(3.3)
    assert found.thought_tokens_per_s == pytest.approx(27 * 4 / 10)
    assert found.passes_per_s == pytest.approx((6 * 1 + 27 * 5) / 10)
    assert found.completed_rate == pytest.approx(0.3)  # the warm-up's answer and two more
    assert found.goodput == pytest.approx(0.2)
    assert found.accuracy == Share(1, 2)


def test_goodput_is_a_part_of_what_was_completed() -> None:
    """Requests that were due in the window and answered after it are in neither."""
    levels = [parse_level("p95 end_to_end<=60s")]
    late = [made_record(n, 5.0 + n / 10, first=20.0) for n in range(10)]
    found = figures(made_cell(late, (0.0, 10.0)), levels)
    assert (found.completed_rate, found.goodput) == (0, 0)
    early = [made_record(n, n / 10, first=n / 10) for n in range(100)]
    for records in (early, [*early, *late]):
        for limit in ("1s", "5s", "60s"):
            found = figures(
                made_cell(records, (0.0, 10.0)), [parse_level(f"p95 end_to_end<={limit}")]
            )
            assert found.goodput is not None
            assert 0 < found.goodput <= found.completed_rate
    assert found.goodput == found.completed_rate  # nothing took longer than the last limit


def test_failed_requests_count_in_no_latency() -> None:
    good = [made_record(n, n / 10) for n in range(100)]
    bad = [made_record(n, n / 10, failure=Failure.TIMEOUT, first=100.0) for n in range(100, 150)]
    with_failures = figures(made_cell(good + bad, (0.0, 15.0)))
    without = figures(made_cell(good, (0.0, 15.0)))
    assert with_failures.latencies == without.latencies
    assert with_failures.visible_tokens_per_s == without.visible_tokens_per_s
    assert with_failures.failure_share == pytest.approx(1 / 3)


def test_a_part_of_a_mix_has_its_own_figures() -> None:
    cell = mixed()
    parts = [figures(cell, budget=budget) for budget in cell.budgets]
    whole = figures(cell)
    assert sum(part.requests for part in parts) == whole.requests == 300
    assert sum(p.visible_tokens_per_s for p in parts) == pytest.approx(whole.visible_tokens_per_s)
    times = [part.latencies["time_per_visible_token"].mean / PASS_SECONDS for part in parts]
    assert times == pytest.approx([1, 5, 17], rel=0.1)


def test_a_server_without_thoughts_has_no_thought_figures() -> None:
    found = figures(made_cell([made_record(0, 0.0, None)], (0.0, 1.0), {"none": 1.0}))
    assert found.thought_tokens_per_s is None
    assert found.passes_per_s is None
