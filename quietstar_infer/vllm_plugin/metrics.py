"""What thinking costs, counted by the model runner and fetched by the server when it is scraped.

Counted here, and not by vLLM's stat loggers: which rows of a pass are thinking is known only to
scheduler and runner, mixing weights only to the device, and vLLM's statistics have no field to
carry either to the server's process. Fetched with `collective_rpc`, and not sent with every engine
step, because a scrape comes once in many seconds. Every tensor-parallel rank counts the same; one
of them is asked.

Shapes: L thoughts that end in a pass, K bounds.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtPlan
from quietstar_infer.vllm_plugin.speculation.passes import PassOutcome

# Upper bounds. The weight is the output of a linear layer: it may be negative (away from the
# thought's prediction) and above 1 (beyond it).
MIXING_WEIGHT_BOUNDS = (
    *(-1.0, -0.5, -0.2, -0.1, -0.05, 0.0),
    *(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.1, 1.2, 1.5, 2.0),
)
# Upper bounds, in nats, of what thoughts are expected to save.
EXPECTED_GAIN_BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    math.inf,
)
# And of what thoughts have saved beyond that: below 0 they saved less, or did harm.
GAIN_ERROR_BOUNDS = (
    *(-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    math.inf,
)

_MANY = 1000


class ThoughtCounts(NamedTuple):
    """What one rank has counted since the engine started.

    `passes`: passes through the base model. `rows`: requests in them; `thinking_rows`: those of
    them in a thought, its first and its last pass included. `thought_tokens`: all that were
    sampled, those of aborted thoughts too. `finished`: thoughts that reached their mixing weight.
    `aborted`: thoughts that did not, by reason. `skipped`: tokens that gated requests did not think
    about. `drafted`: thought tokens that were fed before they were known to be right;
    `drafts_accepted`: those that were, each of which has saved its request a pass.
    `weights_at_most`: upper bounds, and how many of the finished thoughts' mixing weights were not
    above each. `expected_gains_at_most`: the same of the expected gains at all tokens of gated
    requests; `gain_errors_at_most`: of what logged thoughts saved at the visible token, less what
    they were expected to. Both in nats.
    """

    passes: int
    rows: int
    thinking_rows: int
    thought_tokens: int
    finished: int
    aborted: dict[str, int]
    skipped: int
    drafted: int
    drafts_accepted: int
    weights_at_most: list[tuple[float, int]]
    expected_gains_at_most: list[tuple[float, int]]
    gain_errors_at_most: list[tuple[float, int]]


class _Histogram:
    """How many of some numbers were at most each bound, counted on the device without waiting for
    it. NaN is under no bound.
    """

    def __init__(self, bounds: Sequence[float], device: torch.device) -> None:
        self._bounds = bounds
        self._bound_K = torch.tensor(bounds, dtype=torch.float32, device=device)
        self._at_most_K = torch.zeros(len(bounds), dtype=torch.int64, device=device)

    def add(self, value_N: torch.Tensor) -> None:
        """Count numbers, (N,)."""
        self._at_most_K += (value_N.float()[:, None] <= self._bound_K).sum(dim=0)

    def counts(self) -> list[tuple[float, int]]:
        """By bound; waits for the work that is queued on the device."""
        return list(zip(self._bounds, self._at_most_K.tolist(), strict=True))


class _HostHistogram:
    """The same of numbers that the host knows, counted there."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._bound_K = np.array(bounds, dtype=np.float32)
        # How many are between the last bound and each; at last those under none.
        self._number_K = np.zeros(len(bounds) + 1, dtype=np.int64)
        # Not counted yet: it takes as long for many as for a few.
        self._waiting: list[float] = []

    def add(self, values: Sequence[float]) -> None:
        """Count numbers."""
        self._waiting += values
        if len(self._waiting) >= _MANY:
            self._count()

    def _count(self) -> None:
        value_N, self._waiting = np.array(self._waiting, dtype=np.float32), []
        # NaN is sorted behind everything.
        index_N = self._bound_K.searchsorted(value_N)
        self._number_K += np.bincount(index_N, minlength=len(self._number_K))

    def counts(self) -> list[tuple[float, int]]:
        """By bound."""
        self._count()
        at_most_K = self._number_K[:-1].cumsum()
        return list(zip(self._bounds, at_most_K.tolist(), strict=True))


class ThoughtMetrics:
    """Counts as the engine runs; mixing weights on the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._passes = 0
        self._rows = 0
        self._thinking_rows = 0
        self._thought_tokens = 0
        self._finished = 0
        self._aborted: Counter[str] = Counter()
        self._skipped = 0
        self._drafted = 0
        self._drafts_accepted = 0
        self._weights = _Histogram(MIXING_WEIGHT_BOUNDS, device)
        self._expected_gains = _HostHistogram(EXPECTED_GAIN_BOUNDS)
        self._gain_errors = _Histogram(GAIN_ERROR_BOUNDS, device)

    def count_pass(self, num_scheduled_tokens: Mapping[str, int], plan: ThoughtPlan) -> None:
        """Count a pass; an engine step without rows only tells of ended requests."""
        last = sum(step.is_last for step in plan.steps.values())
        thinking = sum(not step.is_gate for step in plan.steps.values())
        self._passes += bool(num_scheduled_tokens)
        self._rows += len(num_scheduled_tokens)
        self._thinking_rows += thinking
        # Each pass of a thought but the last samples one.
        self._thought_tokens += thinking - last
        self._finished += last
        self.count_aborted(plan.aborted)

    def count_decode_only_passes(self, num_rows: int, num_passes: int) -> None:
        """Count passes of which every row feeds one thought token and samples the next."""
        rows = num_rows * num_passes
        self._passes += num_passes
        self._rows += rows
        self._thinking_rows += rows
        self._thought_tokens += rows

    def add_drafted_pass(self, num_rows: int, outcome: PassOutcome) -> None:
        """Count a pass with drafts of so many rows, and what came of it."""
        self._passes += 1
        self._rows += num_rows
        self._thinking_rows += num_rows
        self._drafted += outcome.drafted
        self._drafts_accepted += outcome.accepted
        self._thought_tokens += outcome.found
        self._finished += outcome.ended

    def count_aborted(self, reasons: Sequence[str]) -> None:
        """Count thoughts that were given up before their end."""
        self._aborted.update(reasons)

    def add_weights(self, weight_L1: torch.Tensor) -> None:
        """Count the mixing weights, (L, 1), of thoughts that ended."""
        self._weights.add(weight_L1[:, 0])

    def add_decisions(self, gains: Sequence[float], num_thinking: int) -> None:
        """Count the gate passes of a batch, with the expected gains and how many requests think."""
        self._skipped += len(gains) - num_thinking
        self._thinking_rows += num_thinking
        self._expected_gains.add(gains)

    def add_gain_errors(self, error_W: torch.Tensor) -> None:
        """Count what thoughts have saved, less what they were expected to."""
        self._gain_errors.add(error_W)

    def counts(self) -> ThoughtCounts:
        """All counts; waits for the work that is queued on the device."""
        return ThoughtCounts(
            passes=self._passes,
            rows=self._rows,
            thinking_rows=self._thinking_rows,
            thought_tokens=self._thought_tokens,
            finished=self._finished,
            aborted=dict(self._aborted),
            skipped=self._skipped,
            drafted=self._drafted,
            drafts_accepted=self._drafts_accepted,
            weights_at_most=self._weights.counts(),
            expected_gains_at_most=self._expected_gains.counts(),
            gain_errors_at_most=self._gain_errors.counts(),
        )
