"""Thought sampling is exact, and a pure function of seed, position and step."""

import math
from collections.abc import Callable

import pytest
import torch

from quietstar_infer.sampling import (
    choose_thought_token,
    gumbel_noise,
    mask_meta_tokens,
    row_keys,
    seed_from_text,
    uniform_numbers,
)


def keys(count: int, seed: int = 7, first_position: int = 0, step: int = 0) -> torch.Tensor:
    """The keys of `count` positions of one request."""
    position_N = torch.arange(first_position, first_position + count)
    return row_keys(
        torch.full_like(position_N, seed), position_N, torch.full_like(position_N, step)
    )


def test_noise_has_the_moments_of_a_gumbel() -> None:
    noise = gumbel_noise(keys(2000), vocab_size=1000)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.005)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.01)
    assert torch.isfinite(noise).all()


def test_uniform_numbers_lie_between_0_and_1() -> None:
    """At 0 or 1 noise is infinite, and 0 times it, at temperature 0, is not a number."""
    uniform = uniform_numbers(torch.tensor([0, -1, 2**31 - 1, -(2**31)], dtype=torch.int32))
    assert (uniform > 0).all()
    assert (uniform < 1).all()
    assert uniform[2:].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    count, vocab_size = 100_000, 20
    logits = 2 * torch.randn(vocab_size, generator=torch.Generator().manual_seed(0))
    noise = gumbel_noise(keys(count), vocab_size)
    drawn = choose_thought_token(logits.expand(count, -1), torch.full((count,), temperature), noise)
    frequency = torch.bincount(drawn, minlength=vocab_size) / count
    expected = torch.softmax(logits / temperature, dim=0)
    # Five standard deviations of a frequency.
    assert (frequency - expected).abs().max() < 5 * math.sqrt(0.25 / count)


def test_temperature_0_is_greedy() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    chosen = choose_thought_token(logits, torch.zeros(50), gumbel_noise(keys(50), 30))
    assert torch.equal(chosen, logits.argmax(dim=1))


def test_noise_does_not_depend_on_the_other_rows() -> None:
    key = keys(64)
    together = gumbel_noise(key, 100)
    for row in (0, 17, 63):
        assert torch.equal(gumbel_noise(key[[row]], 100)[0], together[row])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: gumbel_noise(keys(500, seed=8), 501), id="seed"),
        pytest.param(lambda: gumbel_noise(keys(500, seed=7 + 2**40), 501), id="high seed bits"),
        pytest.param(lambda: gumbel_noise(keys(500, first_position=1), 501), id="position"),
        pytest.param(lambda: gumbel_noise(keys(500, step=1), 501), id="step"),
        pytest.param(lambda: gumbel_noise(keys(500), 501).roll(1, dims=1), id="entry"),
    ],
)
def test_neighbouring_keys_are_uncorrelated(other: Callable[[], torch.Tensor]) -> None:
    pair = torch.stack([gumbel_noise(keys(500), 501).flatten(), other().flatten()])
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / math.sqrt(pair.shape[1])


def test_noise_is_the_same_in_every_version() -> None:
    """A seeded request must get the same answer after an update: the function is pinned."""
    where = (torch.tensor(pair) for pair in ([0, 2**62 + 12345], [0, 1000], [0, 7]))
    noise = gumbel_noise(row_keys(*where), 3)
    pinned = [[1.923722, 1.899308, -0.304252], [1.268607, 1.414198, -0.655023]]
    torch.testing.assert_close(noise, torch.tensor(pinned), rtol=0, atol=2e-6)


def test_seed_from_text_is_stable_and_fits_an_int64() -> None:
    assert seed_from_text("cmpl-1") == seed_from_text("cmpl-1") != seed_from_text("cmpl-2")
    assert all(0 <= seed_from_text(str(number)) < 2**63 for number in range(1000))


def test_meta_tokens_are_never_chosen() -> None:
    logits = mask_meta_tokens(torch.zeros(1000, 5), (3, 4))
    drawn = choose_thought_token(logits, torch.ones(1000), gumbel_noise(keys(1000), 5))
    assert set(drawn.tolist()) == {0, 1, 2}
