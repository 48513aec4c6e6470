"""Settings of a whole load test; made from the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loadtest.errors import LoadTestError
from loadtest.traffic.arrivals import Load
from loadtest.traffic.budgets import BudgetMix
from loadtest.traffic.datasets import DataSet
from loadtest.traffic.lengths import Constant, Lengths

_LENGTH = Constant(64)


@dataclass(frozen=True)
class Target:
    """The server, and fields that all requests to it have in common."""

    url: str
    """With or without `/v1` or an endpoint."""
    replicas: tuple[str, ...] = ()
    """More servers of the same model, over which requests are spread, too."""
    model: str | None = None
    """None = the first one that the server lists."""
    api_key: str | None = None
    chat: bool = False
    """`/v1/chat/completions` instead of `/v1/completions`."""
    ignore_eos: bool = False
    """Answers get their full length (vLLM's and our servers)."""
    temperature: float = 0.0
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to every request, which override others."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers of every request, which override others."""
    timeout: float = 600.0
    """Seconds that a request may take from the moment it is sent."""


@dataclass(frozen=True)
class PromptPlan:
    """The source of prompts and the lengths of answers."""

    source: Literal["synthetic", "jsonl", "sharegpt", "answers", "table"] = "synthetic"
    path: Path | None = None
    """Of the sources that are files of a fixed form."""
    table: DataSet | None = None
    """Of the source `table`."""
    input_lengths: Lengths = _LENGTH
    """Of synthetic prompts: in tokens where they can be counted, else in words."""
    output_lengths: Lengths | None = None
    """`max_tokens`. None = the lengths of recorded answers (ShareGPT), else 64. A `max_tokens` in a
    line of a file takes precedence."""
    turns: int = 1
    """Requests of a session, of which each has those before it and their answers in its prompt, and
    is due when the one before is answered."""
    prefix_length: int = 0
    """Tokens (or words) of a text that `prefix_share` of the synthetic prompts begin with, on top
    of their length."""
    prefix_share: float = 0.0
    tokenizer: str | None = None
    """A folder or hub name to count tokens with. None = the server's `/tokenize` where there is
    one, else, for synthetic prompts, the usage of short requests, else words."""


@dataclass(frozen=True)
class Extent:
    """How much of a cell is measured; the first limit reached ends it. A ramp or a trace also ends
    by itself."""

    seconds: float | None = 30.0
    requests: int | None = None
    warmup: float = 0.0
    """Seconds of the same load before the measured part."""
    cooldown: float = 0.0
    """Seconds for which an open loop goes on sending after it, so that the last measured requests
    meet the same load as the others."""
    drain: float | None = None
    """Seconds for which last answers are awaited after the last request was due; None = until they
    have come. Where only a number of requests ends a closed loop, it waits for all of them."""

    def __post_init__(self) -> None:
        if self.seconds is None and self.requests is None:
            raise LoadTestError("a cell needs an end: seconds, a number of requests, or both")
        if self.seconds is not None and self.seconds <= 0:
            raise LoadTestError(f"a cell of {self.seconds:g} seconds measures nothing")
        if self.requests is not None and self.requests < 1:
            raise LoadTestError(f"a cell of {self.requests} requests measures nothing")
        if min(self.warmup, self.cooldown) < 0:
            raise LoadTestError("warm-up and cool-down take 0 seconds or more")


@dataclass(frozen=True)
class StopRules:
    """When a cell stops before its time. The next cells are run all the same."""

    error_rate: float | None = None
    """If a larger share of the finished requests has failed."""
    over_saturation: bool = False
    """If the server falls ever further behind an open loop."""


@dataclass(frozen=True)
class Plan:
    """A whole load test: every load with every mix of budgets, `repeats` times over."""

    target: Target
    loads: tuple[Load, ...]
    budgets: tuple[BudgetMix, ...]
    prompts: PromptPlan = PromptPlan()
    extent: Extent = Extent()
    stops: StopRules = StopRules()
    repeats: int = 1
    seed: int = 0
    workers: int = 1
    """Processes that send."""
    max_in_flight: int = 4096
    """Requests of an open loop that may be in flight at once, over all workers; further ones wait
    at the client, which counts for their latency."""
    reuse_cache: bool = False
    """Let a cell find prompts of earlier cells in the server's prefix cache. If not, each cell has
    a `cache_salt` of its own, where the server has this field."""
