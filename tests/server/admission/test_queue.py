"""Which requests are admitted, and how long the refused should wait."""

import pytest

from quietstar_infer.params import ThoughtParams
from server.admission.cost import PromptCost
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
    first.close(0)
    first.close(0)  # counted once
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
    ticket.close(0)
    queue.ticket().enter(ThoughtParams(16), [PROMPT], 5)


def test_a_refused_request_takes_no_place_in_the_queue() -> None:
    queue, _ = admission(queued_requests=1)
    running, refused = queue.ticket(), queue.ticket()
    running.enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded):
        refused.enter(ThoughtParams(0), [PROMPT], 1)
    refused.close(0)
    with pytest.raises(Overloaded):
        queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)


@pytest.mark.parametrize(("passes_made", "wait"), [(0, 1), (26, 5), (10**6, 1), (1, 60)])
def test_retry_after_follows_the_measured_speed(passes_made: int, wait: int) -> None:
    """Ten seconds of work: 26 passes are 2.6 per second, and one request of 13 must go first."""
    queue, clock = admission(queued_requests=1)
    first = queue.ticket()
    first.enter(ThoughtParams(0), [PROMPT], 1)
    clock.now += 10
    first.close(passes_made)
    clock.now += 1000  # idle
    queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    with pytest.raises(Overloaded, match=f"Try again in {wait} s") as caught:
        queue.ticket().enter(ThoughtParams(0), [PROMPT], 1)
    assert caught.value.headers == {"Retry-After": str(wait)}


def test_the_measured_speed_follows_changes() -> None:
    rate = PassRate()
    rate.add(100, 1)
    assert rate.seconds_for(100) == pytest.approx(1)
    for _ in range(600):
        rate.add(10, 1)
    assert rate.seconds_for(100) == pytest.approx(10, rel=0.01)
