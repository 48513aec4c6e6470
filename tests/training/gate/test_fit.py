"""A gate that is fitted to labels whose mean is known."""

import torch

from training.gate.fit import fit_gate
from training.gate.labels import LabelledPositions
from training.gate.settings import GateSettings

BUDGETS = (2, 8)


def positions(number: int) -> tuple[LabelledPositions, torch.Tensor]:
    """Noisy labels, and their conditional means (N, K): large at one position in twenty, which a
    direction of the hidden state tells.
    """
    generator = torch.Generator().manual_seed(3)
    base_NH = torch.randn(number, 16, generator=generator) * 5 + 2
    pays_N = base_NH[:, 3] > 2 + 5 * 1.645
    mean_NK = torch.where(pays_N[:, None], torch.tensor([0.4, 1.5]), torch.tensor([0.002, 0.01]))
    noise_NK = -torch.rand(mean_NK.shape, generator=generator).log()  # exponential, of mean 1
    zeros_N = torch.zeros(number)
    return (
        LabelledPositions(base_NH, zeros_N, mean_NK * noise_NK, zeros_N, mean_NK, zeros_N),
        mean_NK,
    )


def test_a_fitted_gate_is_calibrated_and_tells_positions_apart() -> None:
    torch.set_num_threads(1)
    labelled, mean_NK = positions(20_000)
    rows = torch.arange(20_000)
    gate = fit_gate(labelled.of(rows < 15_000), BUDGETS, GateSettings(hidden_size=16, epochs=30))
    expected_NK = gate.gains(labelled.base_NH[15_000:])
    mean_NK = mean_NK[15_000:]
    torch.testing.assert_close(expected_NK.mean(0), mean_NK.mean(0), rtol=0.15, atol=0)
    pays_N = mean_NK[:, 1] > 1
    assert (expected_NK[pays_N, 1] > 0.5).float().mean() > 0.8
    assert (expected_NK[~pays_N, 1] > 0.5).float().mean() < 0.02
    assert (expected_NK[~pays_N].median(0).values < torch.tensor([0.01, 0.05])).all()


def test_the_same_labels_give_the_same_gate() -> None:
    labelled, _ = positions(600)
    settings = GateSettings(hidden_size=4, epochs=2)
    one, other = (fit_gate(labelled, BUDGETS, settings).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
