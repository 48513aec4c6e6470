"""What requests with a gate are expected to cost."""

import pytest

from quietstar_infer.params import ThoughtParams
from server.admission.cost import PromptCost, Spending, request_passes
from server.admission.estimates import (
    HALF_LIFE_TOKENS,
    PRIOR_TOKENS,
    ThinkingShares,
    Workload,
    expected_passes,
)

GATED = ThoughtParams(12, threshold=0.1)
PROMPT = PromptCost(length=250, max_tokens=100)
CHUNK = 100


def test_before_anything_is_measured_every_token_is_taken_to_be_thought_about() -> None:
    assert ThinkingShares().of(GATED) == 1


def test_the_share_follows_what_is_measured() -> None:
    shares = ThinkingShares()
    shares.add(GATED, Spending(PRIOR_TOKENS))
    assert shares.of(GATED) == pytest.approx(0.5, rel=0.01)
    for thinks in (0.03, 0.4):
        for _ in range(100):
            shares.add(GATED, Spending(1000, int(1000 * thinks), int(12_000 * thinks)))
        assert shares.of(GATED) == pytest.approx(thinks, rel=0.02)


def test_half_of_what_was_measured_is_forgotten_after_as_many_tokens() -> None:
    shares = ThinkingShares()
    shares.add(GATED, Spending(10**9, 10**9))
    shares.add(GATED, Spending(10**9))
    assert shares.of(GATED) == 0
    shares.add(GATED, Spending(HALF_LIFE_TOKENS, HALF_LIFE_TOKENS))
    assert shares.of(GATED) < 1e-4


@pytest.mark.parametrize(
    ("other", "is_alike"),
    [
        (ThoughtParams(9, threshold=0.05), True),
        (ThoughtParams(12, temperature=0, threshold=0.1, token_budget=7), True),
        (ThoughtParams(12, threshold=0.02), False),
        (ThoughtParams(12, threshold=50.0), False),
        (ThoughtParams(8, threshold=0.1), False),
        (ThoughtParams(17, threshold=0.1), False),
    ],
)
def test_requests_are_alike_by_class_of_threshold_and_budget(
    other: ThoughtParams, is_alike: bool
) -> None:
    shares = ThinkingShares()
    shares.add(GATED, Spending(1000))
    assert (shares.of(other) < 1) == is_alike


def test_a_given_thought_is_expected_and_teaches_nothing() -> None:
    given = ThoughtParams(12, threshold=0.1, first_thought=(7,) * 6)
    shares = ThinkingShares()
    shares.add(given, Spending(10**6))
    assert shares.of(GATED) == 1
    work = Workload.of(given, [PROMPT], 2, CHUNK)
    assert expected_passes(given, work, Spending(), 0) == 3 + 200 + 2 * 7
    assert expected_passes(given, work, Spending(2, 2, 12), 0) == 3 + 200 + 2 * 7


@pytest.mark.parametrize("token_budget", [None, 0, 30, 10**6])
def test_at_share_1_the_expectation_is_the_most(token_budget: int | None) -> None:
    params = ThoughtParams(12, threshold=0.1, token_budget=token_budget)
    work = Workload.of(params, [PROMPT, PROMPT], 3, CHUNK)
    most = request_passes(params, [PROMPT, PROMPT], 3, CHUNK)
    # But for shortened last thoughts.
    assert most - 6 <= expected_passes(params, work, Spending(), 1) <= most


def test_what_is_spent_counts_as_it_is_and_the_rest_as_is_expected() -> None:
    work = Workload.of(GATED, [PROMPT._replace(scored=40)], 2, CHUNK)
    assert expected_passes(GATED, work, Spending(), 0) == 3 + 240
    assert expected_passes(GATED, work, Spending(), 0.1) == 3 + 240 + 24 * 13
    assert expected_passes(GATED, work, Spending(40, 20, 240), 0.1) == 3 + 300 + 200 + 20 * 13
    assert expected_passes(GATED, work, Spending(240, 0, 0), 0.1) == 3 + 240


def test_a_token_budget_bounds_the_expectation() -> None:
    params = ThoughtParams(12, threshold=0.1, token_budget=24)
    work = Workload.of(params, [PROMPT], 1, CHUNK)
    assert expected_passes(params, work, Spending(), 0.5) == 3 + 100 + 2 * 13
    assert expected_passes(params, work, Spending(10, 2, 24), 0.5) == 3 + 36 + 90
