"""What an engine must count for requests that it has answered."""

from collections.abc import Sequence

from quietstar_infer.vllm_plugin.metrics import MIXING_WEIGHT_BOUNDS, ThoughtCounts
from tests.support.engine import Ask, Spoken


def expected_counts(asks: Sequence[Ask], answers: Sequence[Sequence[Spoken]]) -> ThoughtCounts:
    """The least that the answers take, each prompt read in one pass and nothing thought in vain.

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
