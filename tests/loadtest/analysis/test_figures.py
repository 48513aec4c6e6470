"""Figures against numpy, closed forms and records whose figures are known."""

import math
import random

import numpy as np
import pytest

from loadtest.analysis.figures import figures
from loadtest.analysis.intervals import Repeated, Share, difference, student_t, wilson
from loadtest.analysis.levels import parse_level, verdicts
from loadtest.analysis.percentiles import PERCENTILES, distribution, values_needed
from loadtest.analysis.price import front, price_of_a_thought
from loadtest.analysis.timeline import timeline
from loadtest.records import Failure
from tests.support.loadtest.records import PASS_SECONDS, made_cell, made_record, mixed, sweep


def test_percentiles_are_measured_values_at_the_nearest_rank() -> None:
    found = distribution(range(1, 10_001))
    assert found is not None
    ranks = {"p50": 5000, "p90": 9000, "p95": 9500, "p99": 9900, "p99.9": 9990}
    assert found.percentiles == ranks
    assert (found.mean, found.least, found.greatest, found.count) == (5000.5, 1, 10_000, 10_000)


def test_percentiles_agree_with_numpys_on_any_sample() -> None:
    values = np.random.default_rng(0).lognormal(size=4001)
    found = distribution(values)
    assert found is not None
    for name, share in PERCENTILES.items():
        below = np.quantile(values, share, method="lower")
        above = np.quantile(values, share, method="higher")
        assert found.percentiles[name] in (below, above)


def test_a_percentile_is_given_only_where_the_sample_supports_it() -> None:
    needed = {name: values_needed(share) for name, share in PERCENTILES.items()}
    assert needed == {"p50": 5, "p90": 29, "p95": 59, "p99": 299, "p99.9": 2995}
    for name, number in needed.items():
        enough, short = distribution(range(number)), distribution(range(number - 1))
        assert enough is not None
        assert name in enough.percentiles
        assert short is None or name not in short.percentiles
    assert distribution([]) is None


def test_a_supported_percentile_is_seldom_beyond_the_greatest_value() -> None:
    samples = np.random.default_rng(0).random((20_000, values_needed(0.95)))
    assert (samples.max(axis=1) > 0.95).mean() == pytest.approx(0.95, abs=0.01)


def test_wilson_against_published_values() -> None:
    # Newcombe (1998), table I, method 3.
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = wilson(hits, count)
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)
    nothing = wilson(0, 20)
    assert nothing.low == 0
    assert nothing.high == pytest.approx(0.1611, abs=5e-5)


def test_students_t_against_its_closed_forms() -> None:
    assert student_t(1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-5)
    alpha = 0.95
    assert student_t(2) == pytest.approx(alpha * math.sqrt(2 / (1 - alpha**2)), rel=1e-4)
    assert student_t(1.9) == student_t(1)


def test_intervals_of_repeats_and_of_their_difference() -> None:
    repeated = Repeated((1.0, 2.0, 3.0))
    assert repeated.mean == 2
    assert repeated.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-6)
    assert Repeated((1.0,)).half_width is None
    bounds = difference((1.0, 2.0, 3.0), (11.0, 12.0, 13.0))
    # Equal variances: four degrees of freedom.
    assert bounds.low == pytest.approx(10 - 2.7764 * math.sqrt(2 / 3), rel=1e-6)
    assert difference((1.0, 1.0), (3.0, 3.0)).low == 2


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


def test_failures_enter_no_latency() -> None:
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


def test_the_price_of_a_thought_is_the_slope_and_its_interval_holds_it() -> None:
    price = price_of_a_thought(sweep(loads=("closed:4",)))
    assert price is not None
    true = PASS_SECONDS * 1.25 * math.exp(0.15**2 / 2)
    assert price.slope_interval.low < true < price.slope_interval.high
    assert price.slope == pytest.approx(true, rel=0.05)
    assert price.relative_interval.low < 1 < price.relative_interval.high
    assert price.fit > 0.99
    assert price_of_a_thought(sweep(budgets=(4,))) is None


def test_without_budget_0_the_price_is_relative_to_the_fitted_line() -> None:
    cells = [
        made_cell(
            [made_record(n, n, budget, per_token=0.02 + 0.01 * budget) for n in range(5)],
            (0.0, 5.0),
            {str(budget): 1.0},
        )
        for budget in (2, 4, 8)
    ]
    price = price_of_a_thought(cells)
    assert price is not None
    assert price.base == pytest.approx(0.02)
    assert price.relative == pytest.approx(0.5)


def test_the_front_leaves_out_what_is_beaten() -> None:
    bought = front(
        {
            "0": (0.01, Share(2, 10)),
            "2": (0.03, Share(1, 10)),
            "4": (0.05, Share(5, 10)),
            "8": (0.09, Share(5, 10)),
        }
    )
    assert [(b.budget, b.on_front) for b in bought] == [
        *(("0", True), ("2", False), ("4", True), ("8", False))
    ]


def test_levels_are_judged_with_confidence() -> None:
    level = parse_level("p95 time_to_first_token<=200ms")
    assert level.limit == 0.2
    assert level.text == "p95 time_to_first_token<=200ms"

    rng = random.Random(0)

    def judged(fast: int, slow: int, failed: int = 0) -> bool | None:
        records = [made_record(0, 0.0) for _ in range(fast)]
        records += [made_record(0, 0.0, first=0.3) for _ in range(slow)]
        records += [made_record(0, 0.0, failure=Failure.HTTP) for _ in range(failed)]
        rng.shuffle(records)
        return verdicts([level], [records])[0].holds

    assert judged(1000, 0) is True
    assert judged(20, 0) is None  # too few to know
    assert judged(960, 40) is None  # 4 %, but it might be 5
    assert judged(980, 20) is True
    assert judged(900, 100) is False
    assert judged(900, 0, failed=100) is False


def test_misses_in_a_row_count_for_less_than_scattered_ones() -> None:
    level = parse_level("p95 time_to_first_token<=200ms")
    fast = [made_record(0, 0.0) for _ in range(900)]
    slow = [made_record(0, 0.0, first=0.3) for _ in range(100)]
    (together,) = verdicts([level], [fast + slow])
    scattered = fast + slow
    random.Random(0).shuffle(scattered)
    (apart,) = verdicts([level], [scattered])
    # One batch of ten is slow as a whole: it is worth hardly more than ten requests.
    assert together.effective == pytest.approx(10, rel=0.2)
    assert together.holds is None
    assert apart.effective > 500
    assert apart.holds is False


def test_the_timeline_counts_what_was_in_flight() -> None:
    # Ten seconds, one request in each, that takes half of it.
    records = [made_record(n, n, first=0.0, per_token=0.05) for n in range(10)]
    course = timeline(made_cell(records, (0.0, 10.0)), bins=10)
    assert course.in_flight == pytest.approx([0.5] * 10)
    assert course.due == pytest.approx([1.0] * 10)
    assert course.completed == pytest.approx([1.0] * 10)
    assert course.failed.sum() == 0
