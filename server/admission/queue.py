"""The requests in flight: how much work may run and wait, and how much one request may cost.

A single request is limited by what it costs at most: whatever a gate decides, it cannot take more.
The queue counts each by what it is expected to cost, which is the same without a gate.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quietstar_infer.params import ThoughtParams
from server.admission.cost import (
    PromptCost,
    Spending,
    affordable_tokens,
    completion_passes,
    first_thought_passes,
    request_passes,
)
from server.admission.estimates import ThinkingShares, Workload, expected_passes
from server.errors import BadRequest, Overloaded

# Bounds of Retry-After in seconds: clients should neither retry at once nor give up.
_SOONEST, _LATEST = 1, 60
# Half-life of a measured speed, in seconds of work.
_HALF_LIFE = 30.0


@dataclass(frozen=True)
class AdmissionLimits:
    """0 = no limit. `queued_requests` and `queued_passes` bound all requests that run or wait,
    `request_passes` a single one."""

    queued_requests: int
    queued_passes: int
    request_passes: int


class PassRate:
    """Passes per second of work: an exponentially weighted mean."""

    def __init__(self) -> None:
        self._passes = 0.0
        self._seconds = 0.0

    def add(self, passes: int, seconds: float) -> None:
        """Count the passes of the last `seconds` of work."""
        fade = 0.5 ** (seconds / _HALF_LIFE)
        self._passes = self._passes * fade + passes
        self._seconds = self._seconds * fade + seconds

    def seconds_for(self, passes: float) -> float:
        """How long so many passes take; 0 before the first measurement."""
        return passes * self._seconds / self._passes if self._passes else 0.0


@dataclass
class Place:
    """One request's place in the queue.

    `most`: the passes that it can take at most. `spent`: what the engine has reported of it so far,
    if a gate decides about its thoughts. `passes`: what it is expected to take, and counts as.
    """

    params: ThoughtParams
    work: Workload
    most: int
    spent: Spending = field(default_factory=Spending)
    passes: int = 0


class Admission:
    """Counts the requests in flight, and refuses what would exceed the limits."""

    def __init__(
        self, limits: AdmissionLimits, chunk: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`chunk`: tokens of a prompt that one pass prefills, at most."""
        self._limits = limits
        self._chunk = chunk
        self._clock = clock
        self._rate = PassRate()
        self._shares = ThinkingShares()
        self._requests = 0
        self._passes = 0
        self._measured_at = 0.0

    def ticket(self) -> "Ticket":
        """A ticket for a request that has arrived."""
        return Ticket(self)

    def enter(self, params: ThoughtParams, prompts: Sequence[PromptCost], choices: int) -> Place:
        """Admit a request.

        Raises `BadRequest` for one that may cost too much, `Overloaded` where too much is in flight
        already. A request that finds the server idle is never refused as `Overloaded`.
        """
        most = request_passes(params, prompts, choices, self._chunk)
        if 0 < self._limits.request_passes < most:
            raise self._too_expensive(params, prompts, choices, most)
        place = Place(params, Workload.of(params, prompts, choices, self._chunk), most)
        place.passes = self._expected(place)
        if self._requests > 0:
            self._check_queue(place)
        else:
            self._measured_at = self._clock()
        self._requests += place.work.answers
        self._passes += place.passes
        return place

    def correct(self, place: Place, spent: Spending) -> None:
        """A gated request has spent so much more: what it counts as is corrected, and what later
        ones do."""
        place.spent += spent
        self._shares.add(place.params, spent)
        before, place.passes = place.passes, self._expected(place)
        self._passes += place.passes - before

    def leave(self, place: Place, passes_made: int) -> None:
        """A request has ended, and has really taken so many passes."""
        now = self._clock()
        self._rate.add(passes_made, now - self._measured_at)
        self._measured_at = now
        self._requests -= place.work.answers
        self._passes -= place.passes

    def remaining_passes(self, params: ThoughtParams, tokens: int, most: int) -> int:
        """Passes that an answer is expected to take after so many visible tokens, if it gets the
        largest length."""
        made, all_ = completion_passes(params, tokens), completion_passes(params, most)
        if not params.is_gated:
            return all_ - made
        # As if it had thought about as many of its tokens as others.
        share = self._shares.of(params)
        thinking = (params.budget + 1) * share + 1
        given = 0 if tokens else first_thought_passes(params)
        return min(all_ - made, given + math.ceil((most - tokens) * thinking))

    def _expected(self, place: Place) -> int:
        if not place.params.is_gated:
            return place.most
        share = self._shares.of(place.params)
        return min(place.most, expected_passes(place.params, place.work, place.spent, share))

    def _check_queue(self, place: Place) -> None:
        limits, requests, passes = self._limits, place.work.answers, place.passes
        if 0 < limits.queued_requests < self._requests + requests:
            excess = self._requests + requests - limits.queued_requests
            raise self._overloaded(
                f"{self._requests} requests are being served or wait, this server takes "
                f"{limits.queued_requests} (a prompt with n answers counts as n)",
                self._passes / self._requests * excess,
                "queued_requests",
            )
        if 0 < limits.queued_passes < self._passes + passes:
            raise self._overloaded(
                f"the requests being served or waiting may take {self._passes} passes of the "
                f"model, and this one {passes}, this server takes {limits.queued_passes}",
                self._passes + passes - limits.queued_passes,
                "queued_passes",
            )

    def _overloaded(self, message: str, passes_before: float, reason: str) -> Overloaded:
        seconds = math.ceil(self._rate.seconds_for(passes_before))
        wait = str(min(max(seconds, _SOONEST), _LATEST))
        return Overloaded(
            f"too much to do: {message}. Try again in {wait} s",
            reason=reason,
            headers={"Retry-After": wait},
        )

    def _too_expensive(
        self, params: ThoughtParams, prompts: Sequence[PromptCost], choices: int, passes: int
    ) -> BadRequest:
        limit = self._limits.request_passes
        tokens = affordable_tokens(params, prompts, choices, self._chunk, limit)
        fits = f"max_tokens of {tokens} would fit" if tokens else "fewer prompts or answers may fit"
        return BadRequest(
            f"the request may take {passes} passes of the model, this server allows {limit}: with "
            f"{len(prompts)} × {choices} answers and thought_budget {params.budget}, {fits}",
            "max_tokens",
            reason="request_passes",
        )


class Ticket:
    """One request's part in the queue, from `enter` to `close`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._place: Place | None = None

    def enter(self, params: ThoughtParams, prompts: Sequence[PromptCost], choices: int) -> None:
        """Take a place, or raise what `Admission.enter` raises."""
        self._place = self._admission.enter(params, prompts, choices)

    def correct(self, spent: Spending) -> None:
        """The engine reports that the request, which has a gate, has spent so much more."""
        if self._place is not None:
            self._admission.correct(self._place, spent)

    def close(self, spent: Spending) -> None:
        """Give the place back, if it was taken. `spent`: all that the request has spent, as far as
        its answers show, which an aborted one's do not."""
        place, self._place = self._place, None
        if place is None:
            return
        if place.params.is_gated and spent.tokens > place.spent.tokens:
            self._admission.correct(place, spent - place.spent)
        made = place.spent if place.params.is_gated else spent
        self._admission.leave(place, made.passes(place.params.is_gated))
