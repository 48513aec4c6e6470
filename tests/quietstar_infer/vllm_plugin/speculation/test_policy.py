"""Drafts where they pay, by what was measured."""

import pytest

from quietstar_infer.vllm_plugin.speculation.policy import DraftPolicy, PassCost


def measure(cost: PassCost | DraftPolicy, of_step: float, of_pass: float, of_token: float) -> None:
    """Engine steps that take so long, of all kinds."""
    observe = cost.add if isinstance(cost, PassCost) else cost.observe_passes
    for number in range(2000):
        passes, tokens = 1 + number % 4, 3 + number * 7 % 50
        observe(passes, tokens, of_step + of_pass * passes + of_token * tokens)


@pytest.mark.parametrize(
    "expected", [(2e-3, 1e-3, 1e-4), (0.0, 3e-2, 1e-4), (1e-3, 5e-2, 3e-2), (5e-4, 4e-4, 0.0)]
)
def test_what_steps_passes_and_tokens_take(expected: tuple[float, float, float]) -> None:
    cost = PassCost()
    measure(cost, *expected)
    assert cost.fitted() == pytest.approx(expected, rel=0.1, abs=0.03 * max(expected))


def test_steps_that_are_all_alike_tell_what_was_expected() -> None:
    cost = PassCost()
    before = cost.fitted()
    for _ in range(1000):
        cost.add(5, 20, 0.1)
    of_step, of_pass, of_token = cost.fitted()
    assert of_step + 5 * of_pass + 20 * of_token == pytest.approx(0.1, rel=1e-3)
    assert of_pass / of_token == pytest.approx(before[1] / before[2], rel=0.2)


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_a_draft_pays_from_the_measured_chance_on(rows: int) -> None:
    policy = DraftPolicy("auto")
    measure(policy, 2e-3, 1e-3, 1e-4)
    think(policy, rows, 0.6, 2000)
    drafting = policy.drafting(rows)
    assert drafting is not None
    assert drafting.least_chance == pytest.approx(0.1 / (0.1 + 1 / rows), rel=0.1)
    assert drafting.patience == pytest.approx(2, rel=0.1)


def drafts(policy: DraftPolicy, rows: int) -> bool:
    is_drafting = policy.is_drafting(rows)
    assert (policy.drafting(rows) is not None) == is_drafting
    return is_drafting


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


def test_a_fixed_number_and_none() -> None:
    policy = DraftPolicy(5)
    for _ in range(3):
        drafting = policy.drafting(8)
        assert drafting is not None
        assert (drafting.max_drafts, drafting.least_chance) == (5, 0.0)
        assert not drafts(DraftPolicy(0), 1)
        think(policy, 8, 9.0, 1000)
