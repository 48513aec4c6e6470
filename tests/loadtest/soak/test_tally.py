"""What makes a soak a failure."""

from loadtest.records import Failure
from loadtest.soak.tally import FAILED, Tally
from tests.support.loadtest.records import made_cell, made_record


def test_growing_memory_is_wrong() -> None:
    tally = Tally(answered=1, memory_at_start=100, memory_at_end=150)
    assert not tally.wrongs(60, False)
    assert tally.wrongs(40, False) == ["memory grew by 50 MiB, 40 are allowed"]


def test_a_soak_without_answers_is_wrong() -> None:
    assert Tally().wrongs(60, False) == ["no request was answered"]


def test_measured_requests_count() -> None:
    """A refusal for overload is no fault, and nothing is known of requests that were cut short."""
    failures = (None, Failure.TRUNCATED, Failure.REFUSED, Failure.CUT, Failure.UNSENT)
    records = [made_record(n, n, 4, tokens=10, failure=f) for n, f in enumerate(failures)]
    tally = Tally()
    tally.add_measured(made_cell(records, (0.0, 5.0), {"4": 1.0}))
    assert (tally.sent, tally.answered, tally.overload_refused) == (3, 1, 1)
    assert (tally.visible_tokens, tally.thought_tokens) == (10, 40)
    assert tally.faults == {FAILED: 1}
    assert tally.wrongs(60, False) == ["1 × failed"]
