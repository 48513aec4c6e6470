"""Drafts where they pay, by what was measured."""

import pytest

from quietstar_infer.vllm_plugin.schedule_plan import Drafting
from quietstar_infer.vllm_plugin.speculation.policy import DraftPolicy, PassCost


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_a_draft_pays_from_the_measured_chance_on(rows: int) -> None:
    cost = PassCost()
    # A pass takes 1 ms, and each token 0.1 ms; engine steps of one pass or more.
    for number in range(1000):
        passes, tokens = 1 + number % 4, 3 + number * 7 % 50
        cost.add(passes, tokens, 1e-3 * passes + 1e-4 * tokens)
    assert cost.least_chance(rows) == pytest.approx(0.1 / (0.1 + 1 / rows), rel=0.02)


def test_before_anything_is_measured_every_draft_is_fed() -> None:
    assert PassCost().least_chance(1) == 0


def drafts(policy: DraftPolicy, rows: int) -> bool:
    return policy.drafting(rows, all_think=True, goes_on=True) is not None


def think(policy: DraftPolicy, rows: int, factor: float, steps: int) -> list[bool]:
    """Have so many engine steps of thoughts, which with drafts take `factor` times as long per
    token; returns which of them drafted.
    """
    drafted = []
    for _ in range(steps):
        is_drafting = drafts(policy, rows)
        seconds = 0.01 * (factor if is_drafting else 1)
        policy.observe_thoughts(rows, 13 * rows, seconds, is_drafting=is_drafting)
        drafted.append(is_drafting)
    return drafted


@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_the_faster_way_is_taken_nearly_always(rows: int, factor: float) -> None:
    policy = DraftPolicy("auto")
    think(policy, rows, factor, 2000)
    later = think(policy, rows, factor, 10_000)
    assert (sum(later) / len(later) > 0.98) == (factor < 1)
    assert (sum(later) / len(later) < 0.02) == (factor > 1)
    # The other way is tried now and then.
    assert 0 < sum(later) < len(later)


def test_each_size_of_batch_is_judged_by_itself() -> None:
    policy = DraftPolicy("auto")
    think(policy, 1, 0.6, 2000)
    think(policy, 16, 1.5, 2000)
    assert drafts(policy, 1)
    assert not drafts(policy, 16)
    assert not drafts(policy, 17)


def test_nothing_is_drafted_beside_requests_that_do_not_think() -> None:
    assert DraftPolicy("auto").drafting(1, all_think=False, goes_on=False) is None


def test_a_fixed_number_and_none() -> None:
    for all_think in (True, False):
        policy = DraftPolicy(5)
        assert policy.drafting(8, all_think=all_think, goes_on=False) == Drafting(5, 0.0, False)
        assert DraftPolicy(0).drafting(1, all_think=all_think, goes_on=True) is None
