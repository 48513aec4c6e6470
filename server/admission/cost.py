"""What a request costs at most, before it is served: passes of the trunk, each for one row of a
batch."""

from collections.abc import Sequence
from typing import NamedTuple

from quietstar_infer.params import ThoughtParams


class PromptCost(NamedTuple):
    """What a prompt says about its cost: its length, how many tokens may follow it, and how many of
    its own are scored."""

    length: int
    max_tokens: int
    scored: int = 0


def completion_passes(params: ThoughtParams, tokens: int) -> int:
    """Passes for so many visible tokens: a thought of b tokens takes b + 1, see README.md."""
    return tokens + params.thought_tokens(tokens)


def scoring_passes(params: ThoughtParams, tokens: int) -> int:
    """Passes to score so many given tokens: a token costs what it costs to say it, but without
    thoughts nothing, as the prompt is scored while it is read."""
    return completion_passes(params, tokens) if params.budget else 0


def request_passes(
    params: ThoughtParams, prompts: Sequence[PromptCost], choices: int, chunk: int
) -> int:
    """Passes of a whole request: its prompts, each read in chunks of at most `chunk` tokens, and
    `choices` completions of each, as long as they may become.

    The choices of a prompt share its passes: they find it in the prefix cache.
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
    """The largest `max_tokens` with which the request costs at most `limit` passes; 0 where none
    does."""
    low, high = 0, max(prompt.max_tokens for prompt in prompts)
    while low < high:
        middle = (low + high + 1) // 2
        shortened = [prompt._replace(max_tokens=middle) for prompt in prompts]
        if request_passes(params, shortened, choices, chunk) <= limit:
            low = middle
        else:
            high = middle - 1
    return low
