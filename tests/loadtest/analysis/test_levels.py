"""Service levels, judged with confidence."""

import random

import pytest

from loadtest.analysis.levels import parse_level, verdicts
from loadtest.records import Failure
from tests.support.loadtest.records import made_record


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
