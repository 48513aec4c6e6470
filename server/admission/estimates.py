"""What a request with a gate is expected to cost: by the share of tokens that such requests have
lately thought about."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from quietstar_infer.params import ThoughtParams
from server.admission.cost import (
    PromptCost,
    Spending,
    first_thought_passes,
    prefill_passes,
)

# Before anything is measured: every token of so many is taken to be thought about. This can only
# admit too little at first, never too much.
PRIOR_TOKENS = 64
# Half-life of what is measured, in visible tokens: some dozens of requests.
HALF_LIFE_TOKENS = 8192
# Requests are alike whose threshold (nats) and budget lie between the same of these.
_THRESHOLDS = (0.01, 0.03, 0.1, 0.3, 1.0)
_BUDGETS = (2, 4, 8, 16)


class _Share:
    """The share of tokens thought about: an exponentially weighted mean."""

    def __init__(self) -> None:
        self._thoughts = self._tokens = float(PRIOR_TOKENS)

    def add(self, spent: Spending) -> None:
        fade = 0.5 ** (spent.tokens / HALF_LIFE_TOKENS)
        self._thoughts = self._thoughts * fade + spent.thoughts
        self._tokens = self._tokens * fade + spent.tokens

    @property
    def value(self) -> float:
        return self._thoughts / self._tokens


class ThinkingShares:
    """By class of threshold and budget: the share of its tokens that a gated request is expected to
    think about."""

    def __init__(self) -> None:
        self._shares: dict[tuple[int, int], _Share] = defaultdict(_Share)

    def add(self, params: ThoughtParams, spent: Spending) -> None:
        """Learn from what a request with such parameters has spent."""
        if params.first_thought:
            return  # which no gate has decided about
        self._shares[_class_of(params)].add(spent)

    def of(self, params: ThoughtParams) -> float:
        """The expected share, from 0 to 1."""
        return self._shares[_class_of(params)].value


def _class_of(params: ThoughtParams) -> tuple[int, int]:
    return bisect_left(_THRESHOLDS, params.threshold), bisect_left(_BUDGETS, params.budget)


@dataclass(frozen=True)
class Workload:
    """What a request asks for: answers, passes of prefill, visible tokens at most, those of scored
    prompts included, and thought tokens at most (None = as many as the budget makes)."""

    answers: int
    prefill: int
    tokens: int
    max_thought_tokens: int | None

    @classmethod
    def of(
        cls, params: ThoughtParams, prompts: Sequence[PromptCost], choices: int, chunk: int
    ) -> "Workload":
        """The workload of `choices` completions of each prompt."""
        tokens = sum(prompt.scored + choices * prompt.max_tokens for prompt in prompts)
        budget = params.token_budget
        answers = len(prompts) * choices
        limit = None if budget is None else budget * answers
        return cls(answers, prefill_passes(prompts, chunk), tokens, limit)


def expected_passes(params: ThoughtParams, work: Workload, spent: Spending, share: float) -> int:
    """Passes of a gated request that has spent so much: those, and those of its remaining tokens,
    if it thinks about that share of them."""
    tokens = max(0, work.tokens - spent.tokens)
    thoughts = share * tokens
    if work.max_thought_tokens is not None:
        thoughts = min(thoughts, (work.max_thought_tokens - spent.thought_tokens) / params.budget)
    remaining = tokens + thoughts * (params.budget + 1)
    # Of answers that have not begun, as far as is known.
    remaining += max(0, work.answers - spent.tokens) * first_thought_passes(params)
    return work.prefill + spent.passes(is_gated=True) + math.ceil(remaining)
