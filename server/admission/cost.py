"""What a request costs at most, known before it is served: passes of the base model, each counted
per sequence in its batch."""

from collections.abc import Sequence
from typing import NamedTuple

from quietstar_infer.params import ThoughtParams


class PromptCost(NamedTuple):
    """What a prompt's cost depends on: its length, how many tokens may follow it, and how many of
    its own tokens are scored. All in tokens."""

    length: int
    max_tokens: int
    scored: int = 0


def completion_passes(params: ThoughtParams, tokens: int) -> int:
    """Passes for so many visible tokens: with a thought of b tokens each takes b + 1 passes."""
    return tokens + params.thought_tokens(tokens)


def scoring_passes(params: ThoughtParams, tokens: int) -> int:
    """Passes to score so many given tokens: as many as to sample them, but none without thoughts,
    because prefilling the prompt scores it."""
    return completion_passes(params, tokens) if params.budget else 0


def request_passes(
    params: ThoughtParams, prompts: Sequence[PromptCost], choices: int, chunk: int
) -> int:
    """Passes of a whole request: its prompts, each prefilled in chunks of at most `chunk` tokens,
    and `choices` completions of each, of the largest length.

    The choices of a prompt share its prefill, by the prefix cache.
    """
    return sum(
        -(-prompt.length // chunk)
        + scoring_passes(params, prompt.scored)
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
