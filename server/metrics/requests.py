"""What the server's own process can tell about requests: tokens and times.

Times are vLLM's, so nothing is observed of them with `--disable-log-stats`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from prometheus_client import Counter, Histogram

from quietstar_infer.params import ThoughtParams

# Budgets that are told apart, by the largest in each class: 0, 1-2, 3-4, 5-8, 9-16, and above.
_CLASS_LIMITS = (0, 2, 4, 8, 16)
_MODEL = ("model_name",)
_MODEL_AND_BUDGET = ("model_name", "budget")
# A request ends otherwise, too: abandoned by its client, or in an error.
_ANSWERED = {"stop", "length"}

VISIBLE_TOKENS = Counter(
    "quietstar:visible_tokens",
    "Tokens said by the model, as the engine hands them out: what users get, and the tokens of "
    "prompts that are scored with thoughts. rate() of it is the throughput that users see.",
    _MODEL,
)
REQUEST_THOUGHT_TOKENS = Histogram(
    "quietstar:request_thought_tokens",
    "Thought tokens per answer: what its usage reports as reasoning_tokens. A request with n "
    "choices gives n answers. Abandoned requests, aborted thoughts and those about scored prompts "
    "are not in it, so its sum is at most quietstar:thought_tokens_total.",
    _MODEL,
    buckets=(0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000),
)
TIME_PER_VISIBLE_TOKEN = Histogram(
    "quietstar:time_per_visible_token_seconds",
    "Mean time per visible token of each answered prompt of two tokens or more, from its first "
    "visible token on (what comes before is the time to first token), by class of thought budget. "
    "A budget of b takes b + 1 passes per visible token: compare classes before you compare hours.",
    _MODEL_AND_BUDGET,
    buckets=(
        *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
        *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10),
    ),
)
TIME_TO_FIRST_VISIBLE_TOKEN = Histogram(
    "quietstar:time_to_first_visible_token_seconds",
    "Time from a prompt's arrival to its first visible token, by class of thought budget: waiting, "
    "reading the prompt, and the whole of the first thought.",
    _MODEL_AND_BUDGET,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160),
)


class Times(Protocol):
    """What vLLM notes of one choice; the time stamps are of the engine's clock, in seconds."""

    first_token_latency: float
    first_token_ts: float
    last_token_ts: float
    num_generation_tokens: int


class Choice(Protocol):
    """What is new about one choice."""

    index: int
    finish_reason: str | None

    @property
    def token_ids(self) -> Sequence[int]: ...


class Output(Protocol):
    """What the engine hands out for one prompt, as vLLM's `RequestOutput`."""

    finished: bool

    @property
    def outputs(self) -> Sequence[Choice]: ...

    @property
    def metrics(self) -> Times | None: ...


def budget_class(budget: int) -> str:
    """The label of a budget's class."""
    lowest = 0
    for limit in _CLASS_LIMITS:
        if budget <= limit:
            return str(limit) if limit == lowest else f"{lowest}-{limit}"
        lowest = limit + 1
    return f"{lowest}+"


class RequestMetrics:
    """The metrics above, of one model."""

    def __init__(self, model_name: str, max_budget: int) -> None:
        self._visible_tokens = VISIBLE_TOKENS.labels(model_name)
        self._thought_tokens = REQUEST_THOUGHT_TOKENS.labels(model_name)
        # Every class from the start: the first request of a class is a change from 0, which rate()
        # sees.
        classes = dict.fromkeys(budget_class(budget) for budget in range(max_budget + 1))
        self._time_per_token = {c: TIME_PER_VISIBLE_TOKEN.labels(model_name, c) for c in classes}
        self._time_to_first = {
            c: TIME_TO_FIRST_VISIBLE_TOKEN.labels(model_name, c) for c in classes
        }

    def count_visible_tokens(self, number: int) -> None:
        """Count what the engine said in one step."""
        self._visible_tokens.inc(number)

    def watch(self, params: ThoughtParams) -> "RequestWatch":
        """Somebody to see all outputs for a prompt."""
        return RequestWatch(self, params)

    def observe_answer(self, thought_tokens: int) -> None:
        self._thought_tokens.observe(thought_tokens)

    def observe_times(self, budget: int, times: Times) -> None:
        label = budget_class(budget)
        self._time_to_first[label].observe(times.first_token_latency)
        if times.num_generation_tokens > 1:
            seconds = times.last_token_ts - times.first_token_ts
            self._time_per_token[label].observe(seconds / (times.num_generation_tokens - 1))


class RequestWatch:
    """Sees the outputs for one prompt, and observes it when it is answered."""

    def __init__(self, metrics: RequestMetrics, params: ThoughtParams) -> None:
        self._metrics = metrics
        self._params = params
        self._num_visible: dict[int, int] = defaultdict(int)

    def see(self, output: Output) -> None:
        """See the next output, with tokens not seen before."""
        for choice in output.outputs:
            self._num_visible[choice.index] += len(choice.token_ids)
            if choice.finish_reason in _ANSWERED:
                tokens = self._params.thought_tokens(self._num_visible[choice.index])
                self._metrics.observe_answer(tokens)
        answered = output.finished and output.outputs[0].finish_reason in _ANSWERED
        # Of several choices, side by side and alike, vLLM hands out the times of one.
        if answered and output.metrics is not None:
            self._metrics.observe_times(self._params.budget, output.metrics)
