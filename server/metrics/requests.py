"""Metrics that are observed in the server's own process: tokens and times of requests, refusals.

Times are measured by vLLM: none are observed with `--disable-log-stats`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import Counter, Histogram

from quietstar_infer.params import ThoughtParams

# The classes of thought budgets, by their largest: 0, 1-2, 3-4, 5-8, 9-16, and above.
_CLASS_LIMITS = (0, 2, 4, 8, 16)
_MODEL = ("model_name",)
_MODEL_AND_BUDGET = ("model_name", "budget")
# Finish reasons of complete answers. Others: the client left, or an error occurred.
_ANSWERED = {"stop", "length"}

VISIBLE_TOKENS = Counter(
    "quietstar:visible_tokens",
    "Visible tokens as the engine returns them: those that users get, and the tokens of prompts "
    "that are scored with thoughts. rate() of it is the throughput that users see.",
    _MODEL,
)
REQUEST_THOUGHT_TOKENS = Histogram(
    "quietstar:request_thought_tokens",
    "Thought tokens per answer, as its usage reports them. A request with n "
    "choices has n answers. Not counted: abandoned requests, aborted thoughts and those about "
    "scored prompts, so that its sum is at most quietstar:thought_tokens_total.",
    _MODEL,
    buckets=(0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000),
)
TIME_PER_VISIBLE_TOKEN = Histogram(
    "quietstar:time_per_visible_token_seconds",
    "Mean time per visible token of each answered prompt of two tokens or more, after the first "
    "(up to which it is the time to first token), by class of thought budget. A budget of b takes "
    "b + 1 passes per visible token: compare classes before you compare hours. Requests with a "
    "thought_threshold, which think before some tokens only, are classes of their own, such as "
    "'9-16 adaptive'.",
    _MODEL_AND_BUDGET,
    buckets=(
        *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
        *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10),
    ),
)
TIME_TO_FIRST_VISIBLE_TOKEN = Histogram(
    "quietstar:time_to_first_visible_token_seconds",
    "Time from a prompt's arrival to its first visible token, by class of thought budget, with or "
    "without a threshold: waiting, prefill, and the whole first thought.",
    _MODEL_AND_BUDGET,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160),
)
REQUESTS_REFUSED = Counter(
    "quietstar:requests_refused",
    "Requests refused or cut off by a limit of this server.",
    ["reason"],
)
for _reason in (
    "queued_requests",
    "queued_passes",
    "request_passes",
    "request_timeout",
    "receive_timeout",
    "body_size",
    "api_key",
    "host",
    "stopping",
):
    REQUESTS_REFUSED.labels(_reason)  # reported as 0 from the start
REQUESTS_FAILED = Counter(
    "quietstar:requests_failed",
    "Requests that failed in the engine, which goes on, by reason. not_finite: the model computed "
    "NaN or infinities. nothing_to_sample: a grammar and other constraints exclude all tokens.",
    ["reason"],
)
for _reason in ("not_finite", "nothing_to_sample"):
    REQUESTS_FAILED.labels(_reason)


class ChoiceTimes(Protocol):
    """What vLLM measures of one choice, in seconds; time stamps are of the engine's clock."""

    first_token_latency: float
    first_token_ts: float
    last_token_ts: float
    num_generation_tokens: int


class ChoiceOutput(Protocol):
    """What is new in one choice, as vLLM's `CompletionOutput`."""

    index: int
    finish_reason: str | None

    @property
    def token_ids(self) -> Sequence[int]: ...


class PromptOutput(Protocol):
    """What is new in the answers to one prompt, as vLLM's `RequestOutput`."""

    finished: bool

    @property
    def outputs(self) -> Sequence[ChoiceOutput]: ...

    @property
    def metrics(self) -> ChoiceTimes | None: ...


def budget_class(budget: int) -> str:
    """The label of the class of a budget."""
    lowest = 0
    for limit in _CLASS_LIMITS:
        if budget <= limit:
            return str(limit) if limit == lowest else f"{lowest}-{limit}"
        lowest = limit + 1
    return f"{lowest}+"


def request_class(budget: int, is_gated: bool) -> str:
    """The label of the class of a request: with a gate it takes other times than without."""
    return f"{budget_class(budget)} adaptive" if is_gated else budget_class(budget)


class RequestMetrics:
    """The metrics about tokens and times, of one model."""

    def __init__(self, model_name: str, max_budget: int) -> None:
        self._visible_tokens = VISIBLE_TOKENS.labels(model_name)
        self._thought_tokens = REQUEST_THOUGHT_TOKENS.labels(model_name)
        # All classes are reported from the start, so that rate() sees the first request of each.
        classes = dict.fromkeys(
            request_class(budget, is_gated)
            for is_gated in (False, True)
            for budget in range(is_gated, max_budget + 1)
        )
        self._time_per_token = {c: TIME_PER_VISIBLE_TOKEN.labels(model_name, c) for c in classes}
        self._time_to_first = {
            c: TIME_TO_FIRST_VISIBLE_TOKEN.labels(model_name, c) for c in classes
        }

    def count_visible_tokens(self, number: int) -> None:
        """Count the visible tokens of one engine step."""
        self._visible_tokens.inc(number)

    def observe(
        self, params: ThoughtParams, output: PromptOutput, thought_tokens: Callable[[int], int]
    ) -> None:
        """Observe the answers that an output completes. `thought_tokens`: of a choice, by its
        index."""
        for choice in output.outputs:
            if choice.finish_reason in _ANSWERED:
                self._thought_tokens.observe(thought_tokens(choice.index))
        answered = output.finished and output.outputs[0].finish_reason in _ANSWERED
        # Of several choices, which run in the same batches, vLLM returns the times of one.
        if answered and output.metrics is not None:
            self._observe_times(params, output.metrics)

    def _observe_times(self, params: ThoughtParams, times: ChoiceTimes) -> None:
        label = request_class(params.budget, params.is_gated)
        # Behind a given thought the first token takes what a budget of its length would.
        length = len(params.first_thought) or params.budget
        first = request_class(length, params.is_gated)
        self._time_to_first[first].observe(times.first_token_latency)
        if times.num_generation_tokens > 1:
            seconds = times.last_token_ts - times.first_token_ts
            self._time_per_token[label].observe(seconds / (times.num_generation_tokens - 1))
