"""What a request costs, in passes."""

import pytest

from quietstar_infer.params import ThoughtParams
from server.admission.cost import (
    PromptCost,
    Spending,
    affordable_tokens,
    always_thinking,
    request_passes,
)

CHUNK = 100
PROMPT = PromptCost(length=250, max_tokens=10)  # three chunks


@pytest.mark.parametrize(
    ("params", "prompts", "choices", "passes"),
    [
        (ThoughtParams(0), [PROMPT], 1, 3 + 10),
        (ThoughtParams(16), [PROMPT], 1, 3 + 10 * 17),
        (ThoughtParams(4), [PROMPT], 3, 3 + 3 * 10 * 5),
        (ThoughtParams(4), [PROMPT, PromptCost(100, 2)], 2, 3 + 2 * 10 * 5 + 1 + 2 * 2 * 5),
        # Ten thought tokens: four, four, two, and then none.
        (ThoughtParams(4, token_budget=10), [PROMPT], 1, 3 + 10 + 10),
        (ThoughtParams(4, token_budget=10), [PROMPT], 2, 3 + 2 * (10 + 10)),
        (ThoughtParams(4, token_budget=1000), [PROMPT], 1, 3 + 10 * 5),
        (ThoughtParams(4, token_budget=0), [PROMPT], 1, 3 + 10),
        # With a gate a thought takes a pass more: START has one of its own.
        (ThoughtParams(4, threshold=0.1), [PROMPT], 1, 3 + 10 * 6),
        (ThoughtParams(4, threshold=0.1, token_budget=10), [PROMPT], 2, 3 + 2 * (10 + 10 + 3)),
        (ThoughtParams(0, threshold=0.1), [PROMPT], 1, 3 + 10),
        # A given thought, and others behind it, if there is a budget.
        (ThoughtParams(0, first_thought=(7,) * 6), [PROMPT], 2, 3 + 2 * (7 + 9)),
        (ThoughtParams(4, first_thought=(7,) * 6), [PROMPT], 1, 3 + 7 + 9 * 5),
        (ThoughtParams(4, threshold=0.1, first_thought=(7,) * 6), [PROMPT], 1, 3 + 8 + 9 * 6),
        (ThoughtParams(4, threshold=0.1), [PromptCost(250, 0, scored=9)], 1, 3 + 9 * 6),
        # Scoring thinks about the prompt's own tokens, once for all answers.
        (ThoughtParams(4), [PromptCost(250, 10, scored=249)], 2, 3 + 249 * 5 + 2 * 10 * 5),
        (ThoughtParams(0), [PromptCost(250, 10, scored=249)], 1, 3 + 10),
    ],
)
def test_cost(params: ThoughtParams, prompts: list[PromptCost], choices: int, passes: int) -> None:
    assert request_passes(params, prompts, choices, CHUNK) == passes


def test_cost_equals_the_sum_over_tokens() -> None:
    params = ThoughtParams(5, token_budget=23)
    by_token = sum(params.budget_at(index) + 1 for index in range(10))
    assert request_passes(params, [PromptCost(1, 10)], 1, CHUNK) == 1 + by_token


@pytest.mark.parametrize(
    ("params", "tokens", "spent"),
    [
        (ThoughtParams(0), 5, Spending(5)),
        (ThoughtParams(4), 5, Spending(5, 5, 20)),
        (ThoughtParams(4, token_budget=10), 5, Spending(5, 3, 10)),
        (ThoughtParams(4, token_budget=8), 5, Spending(5, 2, 8)),
        (ThoughtParams(4, token_budget=0), 5, Spending(5)),
        (ThoughtParams(0, first_thought=(7, 8)), 5, Spending(5, 1, 2)),
        (ThoughtParams(0, first_thought=(7, 8)), 0, Spending()),
        (ThoughtParams(4, first_thought=(7, 8)), 3, Spending(3, 3, 10)),
        (ThoughtParams(4, first_thought=(7, 8), token_budget=3), 3, Spending(3, 2, 3)),
    ],
)
def test_what_is_spent_where_every_token_is_thought_about(
    params: ThoughtParams, tokens: int, spent: Spending
) -> None:
    assert always_thinking(params, tokens) == spent


@pytest.mark.parametrize("limit", [0, 3, 7, 8, 50, 52, 53, 100_000])
def test_affordable_tokens_are_the_most_that_fit(limit: int) -> None:
    params = ThoughtParams(4)
    tokens = affordable_tokens(params, [PROMPT], 1, CHUNK, limit)

    def cost(max_tokens: int) -> int:
        return request_passes(params, [PromptCost(250, max_tokens)], 1, CHUNK)

    assert tokens == 0 or cost(tokens) <= limit
    assert tokens == PROMPT.max_tokens or cost(tokens + 1) > limit
