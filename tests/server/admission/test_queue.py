"""Which requests are admitted, and how long the refused should wait."""

import pytest

from quietstar_infer.params import ThoughtParams
from server.admission.cost import PromptCost, Spending
from server.admission.estimates import PRIOR_TOKENS
from server.admission.queue import Admission, AdmissionLimits, PassRate
from server.errors import BadRequest, Overloaded

CHUNK = 100
PROMPT = PromptCost(length=250, max_tokens=10)  # three chunks


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(
    queued_requests: int = 0, queued_passes: int = 0, request_passes: int = 0
) -> tuple[Admission, Clock]:
    clock = Clock()
    limits = AdmissionLimits(queued_requests, queued_passes, request_passes)
    return Admission(limits, CHUNK, clock), clock


def test_a_refused_request_learns_what_would_fit() -> None:
    queue, _ = admission(request_passes=53)
    with pytest.raises(BadRequest, match=r"may take 103 passes .* allows 53") as caught:
        queue.ticket().enter(ThoughtParams(4), [PROMPT], 2)
    assert "max_tokens of 5 would fit" in str(caught.value)
    assert caught.value.reason == "request_passes"
    queue.ticket().enter(ThoughtParams(4), [PROMPT], 1)


def test_every_answer_counts_as_a_request() -> None:
    queue, _ = admission(queued_requests=4)
    first, second = queue.ticket(), queue.ticket()
    first.enter(ThoughtParams(0), [PROMPT], 3)
    with pytest.raises(Overloaded, match="3 requests are being served") as caught:
        second.enter(ThoughtParams(0), [PROMPT], 2)
    assert caught.value.reason == "queued_requests"
    second.enter(ThoughtParams(0), [PROMPT], 1)
    first.close(Spending())
    first.close(Spending())  # counted once
    queue.ticket().enter(ThoughtParams(0), [PROMPT], 3)


def test_thinking_requests_fill_the_queue_sooner() -> None:
    queue, _ = admission(queued_passes=300)
    queue.ticket().enter(ThoughtParams(16), [PROMPT], 1)  # 173 passes
    with pytest.raises(Overloaded) as caught:
        queue.ticket().enter(ThoughtParams(16), [PROMPT], 1)
    assert caught.value.reason == "queued_passes"
    for _ in range(9):
        queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded):
        queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)


def test_a_request_that_finds_the_server_idle_is_admitted() -> None:
    queue, _ = admission(queued_requests=1, queued_passes=1)
    ticket = queue.ticket()
    ticket.enter(ThoughtParams(16), [PROMPT], 5)
    ticket.close(Spending())
    queue.ticket().enter(ThoughtParams(16), [PROMPT], 5)


def test_a_refused_request_takes_no_place_in_the_queue() -> None:
    queue, _ = admission(queued_requests=1)
    running, refused = queue.ticket(), queue.ticket()
    running.enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded):
        refused.enter(ThoughtParams(0), [PROMPT], 1)
    refused.close(Spending())
    with pytest.raises(Overloaded):
        queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)


@pytest.mark.parametrize(("passes_made", "wait"), [(0, 1), (26, 5), (10**6, 1), (1, 60)])
def test_retry_after_follows_the_measured_speed(passes_made: int, wait: int) -> None:
    """Ten seconds of work: 26 passes are 2.6 per second, and one request of 13 must go first."""
    queue, clock = admission(queued_requests=1)
    first = queue.ticket()
    first.enter(ThoughtParams(0), [PROMPT], 1)
    clock.now += 10
    first.close(Spending(passes_made))
    clock.now += 1000  # idle
    queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded, match=f"Try again in {wait} s") as caught:
        queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    assert caught.value.headers == {"Retry-After": str(wait)}


GATED = ThoughtParams(9, threshold=0.1)
# At most 11 passes a token, beside three chunks.
MOST = 3 + 10 * 11
# After so many tokens without a thought the prior is forgotten.
QUIET = Spending(10**6)


def test_a_request_with_a_gate_is_limited_by_what_it_costs_at_most() -> None:
    """However seldom such requests have thought: what the gate decides is not known beforehand."""
    queue, _ = admission(request_passes=MOST - 1)
    queue._shares.add(GATED, QUIET)
    with pytest.raises(BadRequest, match=f"may take {MOST} passes") as caught:
        queue.ticket().enter(GATED, [PROMPT], 1)
    assert "max_tokens of 9 would fit" in str(caught.value)


def test_a_request_with_a_gate_counts_as_what_such_requests_have_cost() -> None:
    queue, _ = admission(queued_passes=MOST + 14)
    queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)  # 13 passes
    learning = queue.ticket()
    learning.enter(GATED, [PROMPT], 1)
    # Nothing is known: it counts as if it always thought.
    with pytest.raises(Overloaded, match=f"may take {MOST + 13} passes .* this one {MOST},"):
        queue.ticket().enter(GATED, [PROMPT], 1)
    learning.close(QUIET)
    for _ in range(8):
        queue.ticket().enter(GATED, [PROMPT], 1)
    with pytest.raises(Overloaded, match=r"may take 117 passes .* this one 13,"):
        queue.ticket().enter(GATED, [PROMPT], 1)
    # Another threshold and another budget are other requests.
    for other in (ThoughtParams(9, threshold=2.0), ThoughtParams(2, threshold=0.1)):
        with pytest.raises(Overloaded):
            queue.ticket().enter(other, [PROMPT._replace(max_tokens=100)], 1)


def test_what_a_running_request_counts_as_is_corrected() -> None:
    queue, _ = admission(queued_passes=10**6)
    queue._shares.add(GATED, QUIET)
    running = queue.ticket()
    running.enter(GATED, [PromptCost(100, 1000)], 1)
    assert queue._passes == pytest.approx(1 + 1000, abs=3)
    # Against expectation it thinks about each of its first ten tokens.
    for _ in range(10):
        running.correct(Spending(1, 1, 9))
    assert queue._passes == pytest.approx(1 + 1000 + 10 * 10, abs=20)
    # It ends sooner than it might have.
    running.close(Spending(12, 10, 90))
    assert queue._passes == 0


def test_an_aborted_request_is_learned_from_as_far_as_the_engine_reported() -> None:
    """The response of an aborted request that is not a stream has shown no token."""
    queue, clock = admission()
    ticket = queue.ticket()
    ticket.enter(GATED, [PROMPT], 1)
    ticket.correct(Spending(3, 1, 9))
    ticket.correct(Spending(4, 1, 9))
    clock.now += 1
    ticket.close(Spending())
    assert queue._rate.seconds_for(7 + 18 + 2) == pytest.approx(1)
    thoughts, tokens = PRIOR_TOKENS + 2, PRIOR_TOKENS + 7
    assert queue._shares.of(GATED) == pytest.approx(thoughts / tokens, rel=1e-3)


def test_the_measured_speed_follows_changes() -> None:
    rate = PassRate()
    rate.add(100, 1)
    assert rate.seconds_for(100) == pytest.approx(1)
    for _ in range(600):
        rate.add(10, 1)
    assert rate.seconds_for(100) == pytest.approx(10, rel=0.01)


def test_what_is_still_to_do_of_an_answer() -> None:
    queue = Admission(AdmissionLimits(0, 0, 0), chunk=8)
    assert queue.remaining_passes(ThoughtParams(4), 0, 10) == 50
    assert queue.remaining_passes(ThoughtParams(4), 7, 10) == 15
    assert queue.remaining_passes(ThoughtParams(0), 7, 10) == 3
    # Of a gated one, before anything is measured, at most.
    gated = ThoughtParams(4, threshold=0.1)
    assert queue.remaining_passes(gated, 0, 10) == 60
