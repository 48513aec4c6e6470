"""What a request costs, in passes of the base model, each counted per sequence in its batch: at
most, as is known before it is served, and really.

A visible token takes a pass, and a thought of b tokens before it b more, because START is fed in
the pass of the text token before. Where a gate decides, the pass of the text token comes first and
alone, so that a thought takes b + 1 more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quietstar_infer.params import ThoughtParams


class PromptCost(NamedTuple):
    """What a prompt's cost depends on: its length, how many tokens may follow it, and how many of
    its own tokens are scored. All in tokens."""

    length: int
    max_tokens: int
    scored: int = 0


@dataclass(frozen=True)
class Spending:
    """What visible tokens have taken: `thoughts` before as many of the `tokens`, of
    `thought_tokens` in all."""

    tokens: int = 0
    thoughts: int = 0
    thought_tokens: int = 0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            self.tokens + other.tokens,
            self.thoughts + other.thoughts,
            self.thought_tokens + other.thought_tokens,
        )

    def __sub__(self, other: "Spending") -> "Spending":
        return Spending(
            self.tokens - other.tokens,
            self.thoughts - other.thoughts,
            self.thought_tokens - other.thought_tokens,
        )

    def passes(self, is_gated: bool) -> int:
        """The passes for it; `is_gated`: a gate decided about each thought."""
        return self.tokens + self.thought_tokens + (self.thoughts if is_gated else 0)


def always_thinking(params: ThoughtParams, tokens: int) -> Spending:
    """What so many visible tokens take where all are thought about, until `token_budget` is spent:
    exactly without a gate, at most with one."""
    thought_tokens = params.thought_tokens(tokens)
    given = len(params.first_thought) if tokens else 0
    # Only the last thought is shortened.
    sampled = -(-(thought_tokens - given) // params.budget) if params.budget else 0
    return Spending(tokens, bool(given) + sampled, thought_tokens)


def first_thought_passes(params: ThoughtParams) -> int:
    """Passes that a given thought takes, whatever a gate decides about others; 0 if none is."""
    given = len(params.first_thought)
    return given + params.is_gated if given else 0


def completion_passes(params: ThoughtParams, tokens: int) -> int:
    """Passes for so many visible tokens, at most."""
    return always_thinking(params, tokens).passes(params.is_gated)


def scoring_passes(params: ThoughtParams, tokens: int) -> int:
    """Passes to score so many given tokens, at most: as many as to sample them, but none without
    thoughts, because prefilling the prompt scores it."""
    return completion_passes(params, tokens) if params.budget else 0


def prefill_passes(prompts: Sequence[PromptCost], chunk: int) -> int:
    """Passes to prefill prompts in chunks of at most `chunk` tokens. The choices of a prompt share
    its prefill, by the prefix cache."""
    return sum(-(-prompt.length // chunk) for prompt in prompts)


def request_passes(
    params: ThoughtParams, prompts: Sequence[PromptCost], choices: int, chunk: int
) -> int:
    """Passes of a whole request, at most: its prompts, and `choices` completions of each, of the
    largest length."""
    return prefill_passes(prompts, chunk) + sum(
        scoring_passes(params, prompt.scored)
        + choices * completion_passes(params, prompt.max_tokens)
        for prompt in prompts
    )


def affordable_tokens(
    params: ThoughtParams, prompts: Sequence[PromptCost], choices: int, chunk: int, limit: int
) -> int:
    """The largest `max_tokens` with which the request costs at most `limit` passes; 0 if none."""
    low, high = 0, max(prompt.max_tokens for prompt in prompts)
    while low < high:
        middle = (low + high + 1) // 2
        shortened = [prompt._replace(max_tokens=middle) for prompt in prompts]
        if request_passes(params, shortened, choices, chunk) <= limit:
            low = middle
        else:
            high = middle - 1
    return low
