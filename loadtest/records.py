"""What a load test records: the contract between the part that sends and the part that reports.

A *run* is a list of *cells*: one load with one thought budget (or mix of budgets), once. A cell has
a record of every request that was scheduled, also of those that failed. Everything that is reported
is computed from these records; nothing is averaged before.

Times are seconds since the cell's start on a monotonic clock of the sending process.
"""

import math
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 3
"""Of the JSON of a `Run`; raised with every change that older versions would misread. 2: cells have
a threshold (without it those of several thresholds would be taken for repeats). 3: answers have
reasoning tokens, and may have no visible ones (their throughput would be missing)."""


def threshold_suffix(threshold: float | None) -> str:
    """What the name of a budget or mix with this threshold ends with."""
    return "" if threshold is None else f", threshold {threshold:.12g}"


class Failure(StrEnum):
    """Why a request failed. Failed requests count in no latency."""

    REFUSED = "refused"
    """The server refused on purpose: 429 or 503."""
    HTTP = "http"
    """Any other status than 200."""
    CONNECTION = "connection"
    """No connection, or one that broke before the first byte of the answer."""
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    """The stream ended without its end mark, or without a finish reason."""
    ERROR_IN_STREAM = "error_in_stream"
    EMPTY = "empty"
    """Status 200, but no visible token."""
    MISCOUNTED = "miscounted"
    """The number of visible tokens in the stream is not that in its usage."""
    OVER_BUDGET = "over_budget"
    """More thought tokens than the budget allows, or none where there should be some."""
    UNDRAINED = "undrained"
    """Not answered when the cell had waited long enough for last answers (`--drain`)."""
    UNSENT = "unsent"
    """Still waiting at the client when the cell was cut short."""
    CUT = "cut"
    """In flight when the cell was cut short; no fault of the server."""


class Record(BaseModel):
    """One request. If it succeeded (`failure` is None), all times are set."""

    model_config = ConfigDict(frozen=True)

    index: int
    """Its number in the cell's schedule. The measured ones count from 0, whatever the warm-up;
    warm-up requests count down from -1."""
    worker: int = 0
    server: int = 0
    """Which of several servers it was sent to: its index in `Run.urls`."""
    budget: int | None
    """The requested thought budget; None for servers without thought budgets."""
    threshold: float | None = None
    """The requested thought threshold in nats; None = none was sent, or the budget is 0."""
    turn: int = 0
    """Its number in its session; 0 is the first."""
    threshold_in_force: float | None = None
    """As the server says; None where it does not."""
    warmup: bool = False
    """Due before or after the measured window: in no latency, count or failure. The tokens that it
    receives within the window do count for throughput, or the window's edges would distort it."""
    scheduled: float
    """When it was due. Latencies count from here, so that the time which a request waits at the
    client because the server is slow is part of them."""
    sent: float | None = None
    token_times: list[float] = []
    """When each visible token arrived; tokens that come in one chunk share a time. Empty where the
    answer was cut at its length while it still reasoned: no failure."""
    reasoning_times: list[float] = []
    """When each reasoning token arrived, where the server streams its reasoning."""
    finished: float | None = None
    """When the last byte arrived, or when it failed."""
    asked_tokens: int
    """`max_tokens`."""
    prompt_tokens: int | None = None
    """From usage."""
    thought_tokens: int | None = None
    """From usage (`thought_tokens`, or `completion_tokens_details.reasoning_tokens`), else as
    counted in the stream."""
    thoughts_counted: int | None = None
    """Visible tokens that were thought about, as the server counts them: `quiet_star.thoughts`."""
    passes_counted: int | None = None
    """Passes of the model, as the server counts them: `quiet_star.passes`."""
    failure: Failure | None = None
    message: str | None = None
    """The failure in words."""
    status: int | None = None
    correct: bool | None = None
    """Whether the answer is the expected one, where one is expected."""

    @property
    def visible_tokens(self) -> int:
        """Counted in the stream."""
        return len(self.token_times)

    @property
    def reasoning_tokens(self) -> int:
        """Counted in the stream; hidden ones are in `thought_tokens` only."""
        return len(self.reasoning_times)

    @property
    def ended_thinking(self) -> bool:
        """Whether a successful answer was cut before its first visible token."""
        return self.failure is None and not self.token_times

    @property
    def is_gated(self) -> bool:
        """Whether the server decides at every token anew if it thinks about it."""
        asked = self.threshold if self.threshold_in_force is None else self.threshold_in_force
        return self.budget != 0 and bool(asked)

    @property
    def thoughts(self) -> int | None:
        """Visible tokens that were thought about: as the server counts them, else the thought
        tokens divided by the budget."""
        if self.thoughts_counted is not None:
            return self.thoughts_counted
        if 0 in (self.budget, self.thought_tokens):
            return 0
        if self.budget is None or self.thought_tokens is None:
            return None
        return math.ceil(self.thought_tokens / self.budget)

    @property
    def passes(self) -> int | None:
        """Passes of the model for the whole answer: as the server counts them, else from what was
        thought. START shares a pass with the visible token before it, but has one of its own where
        a gate decides after that token. None where it is not known."""
        if self.passes_counted is not None:
            return self.passes_counted
        if self.budget is None:
            return None
        if self.thought_tokens is None:
            return None if self.is_gated else self.visible_tokens * (self.budget + 1)
        starts = self.thoughts if self.is_gated else 0
        return None if starts is None else self.visible_tokens + self.thought_tokens + starts

    @property
    def queued(self) -> float:
        """Seconds in the client's own queue: between due and sent."""
        assert self.sent is not None
        return self.sent - self.scheduled

    @property
    def time_to_first_token(self) -> float | None:
        """To the first visible one, from the scheduled time; None where there is none."""
        return self.token_times[0] - self.scheduled if self.token_times else None

    @property
    def time_to_first_reasoning_token(self) -> float | None:
        """From the scheduled time; None where the server streamed no reasoning."""
        return self.reasoning_times[0] - self.scheduled if self.reasoning_times else None

    @property
    def thinking_time(self) -> float | None:
        """From the first reasoning token to the first visible one, or to the last reasoning token
        of an answer that was cut before; None where the server streamed no reasoning."""
        if not self.reasoning_times:
            return None
        end = self.token_times[0] if self.token_times else self.reasoning_times[-1]
        return end - self.reasoning_times[0]

    @property
    def time_per_reasoning_token(self) -> float | None:
        """Mean seconds per token after the first; None for a single token."""
        return _mean_gap(self.reasoning_times)

    @property
    def time_per_visible_token(self) -> float | None:
        """Mean seconds per token after the first; None for a single token."""
        return _mean_gap(self.token_times)

    @property
    def end_to_end(self) -> float:
        """From the scheduled time to the last byte."""
        assert self.finished is not None
        return self.finished - self.scheduled


def window_up_to(last: float) -> float:
    """The end of a window that includes what happens at `last`."""
    return math.nextafter(last, math.inf)


def _mean_gap(times: list[float]) -> float | None:
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None


class ClientHealth(BaseModel):
    """Whether the client kept up. If it did not, the figures are the client's, not the server's."""

    workers: int
    loop_lag_p99: float
    """By how many seconds the event loop woke late."""
    loop_lag_max: float
    cpu_share_max: float
    """Of one core, the busiest worker's."""
    late_sends: int
    """Requests sent more than `late_after` seconds after they were due, although fewer than the
    maximum were in flight."""
    late_after: float


class ServerSample(BaseModel):
    """The server's own gauges at one moment."""

    time: float
    running: float
    """Requests in the engine's batch: prefilling, thinking or decoding."""
    waiting: float
    """Requests in its queue."""


class Cell(BaseModel):
    """One load with one budget or mix of budgets, once."""

    budgets: dict[str, float]
    """The mix: budget (as text; "none" where the server takes none) to its share. With a
    `budget_field`, its value."""
    budget_field: str | None = None
    """The field of the request that says how much to think, of servers without thought budgets
    (`reasoning_effort`); None = `thought_budget`."""
    threshold: float | None = None
    """The thought threshold in nats of those that think. None = none was sent: the server's default
    (in results of schema version 1: not known)."""
    load: str
    """As on the command line: `closed:8`, `poisson:12.5`, ..."""
    asked_rate: float | None
    """Requests per second, for an open loop."""
    concurrency: int | None
    """For a closed loop."""
    repeat: int = 0
    window: tuple[float, float]
    """The measured part, without the moment of its end; requests scheduled outside it are warm-up
    or cool-down."""
    steps: list[tuple[float, float, float]] = []
    """Of a ramp: the rate per second of each step, its start and its end."""
    records: list[Record]
    client: ClientHealth | None
    """None where the run ended before it was known."""
    server: dict[str, tuple[float, float]] = {}
    """The server's counters before and after, by metric and labels, where it has them; sums over
    all servers."""
    occupancy: list[ServerSample] = []
    """Every two seconds, where the server shows it (`vllm:num_requests_running`)."""
    partial: bool = False
    """Cut short: by Ctrl-C, a full disk, or a server that cannot be reached any more."""
    stopped: str | None = None
    """Why it was stopped as asked (`--error-rate`, `--over-saturation`), in words; not partial."""
    warnings: list[str] = []


class Run(BaseModel):
    """A whole load test."""

    schema_version: int = SCHEMA_VERSION
    label: str
    started_at: str
    """ISO 8601, UTC."""
    url: str
    urls: list[str] = []
    """Of all servers, where requests were spread over several; `url` is the first."""
    model: str
    server_version: str | None = None
    command: list[str]
    seed: int
    machine: str
    """The client's: cores, memory, system. Nothing is known about the server's."""
    prompts: str
    """Their source, in words."""
    scenario: str | None = None
    levels: list[str] = []
    """Service levels, as on the command line: `p95 time_per_visible_token<=100ms`."""
    cells: list[Cell]
    warnings: list[str] = []
    notes: list[str] = []
    """Results in words, of a search or a soak."""
