"""What an engine must count for requests that it has answered."""

from collections.abc import Sequence
from typing import Any

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.metrics import (
    EXPECTED_GAIN_BOUNDS,
    GAIN_ERROR_BOUNDS,
    MIXING_WEIGHT_BOUNDS,
    ThoughtCounts,
)
from tests.support.engine import Answer, Ask


def expected_counts(asks: Sequence[Ask], answers: Sequence[Sequence[Answer]]) -> ThoughtCounts:
    """The least that the answers take without drafts: each prompt is prefilled in one pass and no
    thought is thought in vain.

    `passes` is what they take one after the other.
    """
    paired = [
        (ask.thoughts, choice)
        for ask, choices in zip(asks, answers, strict=True)
        for choice in choices
    ]
    # Where a gate decides, a thought takes one pass more: START is fed in a pass of its own.
    thoughts = [
        (budget, int(params.is_gated))
        for params, choice in paired
        for budget in _budgets(params, choice)
        if budget > 0
    ]
    weights = [
        weight for _, choice in paired for weight in choice.mixing_weights if weight is not None
    ]
    decisions = [
        (gain, len(thought))
        for params, choice in paired
        if params.is_gated
        for gain, thought in zip(choice.expected_gains, choice.thoughts, strict=True)
    ]
    errors = [
        mixed - base - gain
        for _, choice in paired
        for thought, mixed, base, gain in zip(
            choice.thoughts,
            choice.mixed_logprobs,
            choice.base_logprobs,
            choice.expected_gains,
            strict=True,
        )
        if thought
    ]
    passes = sum(len(choice.token_ids) for _, choice in paired) + sum(map(sum, thoughts))
    return ThoughtCounts(
        passes=passes,
        rows=passes,
        thinking_rows=sum(budget + 1 + gated for budget, gated in thoughts),
        thought_tokens=sum(budget for budget, _ in thoughts),
        finished=len(thoughts),
        aborted={},
        skipped=sum(length == 0 for _, length in decisions),
        drafted=0,
        drafts_accepted=0,
        weights_at_most=_at_most(weights, MIXING_WEIGHT_BOUNDS),
        expected_gains_at_most=_at_most([gain for gain, _ in decisions], EXPECTED_GAIN_BOUNDS),
        gain_errors_at_most=_at_most(errors, GAIN_ERROR_BOUNDS),
    )


def _budgets(params: ThoughtParams, choice: Answer) -> list[int]:
    """The thought tokens before each visible token of an answer."""
    if params.is_gated:
        return [len(thought) for thought in choice.thoughts]
    return [params.budget_at(index) for index in range(len(choice.token_ids))]


def _at_most(values: Sequence[float], bounds: Sequence[float]) -> list[tuple[float, int]]:
    return [(bound, sum(value <= bound for value in values)) for bound in bounds]


def difference(after: ThoughtCounts, before: ThoughtCounts) -> ThoughtCounts:
    """What was counted in between, by an engine that other tests use, too."""
    aborted = {
        reason: number - before.aborted.get(reason, 0)
        for reason, number in after.aborted.items()
        if number != before.aborted.get(reason, 0)
    }
    histograms: dict[str, Any] = {
        name: [
            (bound, now - then)
            for (bound, now), (_, then) in zip(
                getattr(after, name), getattr(before, name), strict=True
            )
        ]
        for name in ("weights_at_most", "expected_gains_at_most", "gain_errors_at_most")
    }
    numbers: dict[str, Any] = {
        name: getattr(after, name) - getattr(before, name)
        for name in (
            *("passes", "rows", "thinking_rows", "thought_tokens", "finished", "skipped"),
            *("drafted", "drafts_accepted"),
        )
    }
    return ThoughtCounts(**numbers, aborted=aborted, **histograms)
