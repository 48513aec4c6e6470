"""What an engine must count for requests that it has answered."""

from collections.abc import Sequence

from quietstar_infer.vllm_plugin.metrics import MIXING_WEIGHT_BOUNDS, ThoughtCounts
from tests.support.engine import Answer, Ask


def expected_counts(asks: Sequence[Ask], answers: Sequence[Sequence[Answer]]) -> ThoughtCounts:
    """The least that the answers take: each prompt is prefilled in one pass and no thought is
    thought in vain.

    `passes` is what they take one after the other.
    """
    budgets = [
        ask.thoughts.budget_at(index)
        for ask, choices in zip(asks, answers, strict=True)
        for choice in choices
        for index in range(len(choice.token_ids))
    ]
    weights = [
        weight for choices in answers for choice in choices for weight in choice.mixing_weights
    ]
    return ThoughtCounts(
        passes=sum(budget + 1 for budget in budgets),
        rows=sum(budget + 1 for budget in budgets),
        thinking_rows=sum(budget + 1 for budget in budgets if budget),
        thought_tokens=sum(budgets),
        finished=sum(budget > 0 for budget in budgets),
        aborted={},
        weights_at_most=[
            (bound, sum(weight <= bound for weight in weights)) for bound in MIXING_WEIGHT_BOUNDS
        ],
    )


def difference(after: ThoughtCounts, before: ThoughtCounts) -> ThoughtCounts:
    """What was counted in between, by an engine that other tests use, too."""
    aborted = {
        reason: number - before.aborted.get(reason, 0)
        for reason, number in after.aborted.items()
        if number != before.aborted.get(reason, 0)
    }
    weights = [
        (bound, now - then)
        for (bound, now), (_, then) in zip(
            after.weights_at_most, before.weights_at_most, strict=True
        )
    ]
    numbers = {
        name: getattr(after, name) - getattr(before, name)
        for name in ("passes", "rows", "thinking_rows", "thought_tokens", "finished")
    }
    return ThoughtCounts(**numbers, aborted=aborted, weights_at_most=weights)
