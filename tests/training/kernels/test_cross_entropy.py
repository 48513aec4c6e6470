"""The chunked language-model head against torch's own cross entropy."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import training.kernels.cross_entropy as chunked
from training.kernels.softmax import log_sum_exp

ROWS, HIDDEN, VOCAB = 23, 8, 31
BANNED = (3, 7)


class Inputs(NamedTuple):
    hidden_NH: Tensor
    weight_VH: Tensor
    targets_N: Tensor
    factor_N: Tensor


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunked.CHUNK_LOGITS, "cpu", 5 * VOCAB)
    monkeypatch.setitem(chunked.RUN_LOGITS, "cpu", 2 * VOCAB)


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator, requires_grad=True)
    targets = torch.randint(10, VOCAB, (ROWS,), generator=generator)
    return Inputs(hidden, weight, targets, torch.randn(ROWS, generator=generator))


def gradients(nll_N: Tensor, inputs: Inputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad((nll_N * inputs.factor_N).sum(), inputs[:2])


def assert_same(actual_N: Tensor, expected_N: Tensor, inputs: Inputs) -> None:
    torch.testing.assert_close(actual_N, expected_N)
    torch.testing.assert_close(gradients(actual_N, inputs), gradients(expected_N, inputs))


def plain(inputs: Inputs) -> Tensor:
    logits = inputs.hidden_NH @ inputs.weight_VH.T
    return F.cross_entropy(logits, inputs.targets_N, reduction="none")


@pytest.mark.parametrize("likely", ["none", "right", "right up to a factor", "wrong", "zero"])
def test_values_and_gradients(inputs: Inputs, likely: str) -> None:
    factor_N = {
        "none": None,
        "right": inputs.factor_N,
        "right up to a factor": -3 * inputs.factor_N,
        "wrong": torch.ones(ROWS),
        "zero": torch.zeros(ROWS),
    }[likely]
    nll_N = chunked.token_cross_entropy(*inputs[:3], factor_N)
    assert_same(nll_N, plain(inputs), inputs)


def test_score_function(inputs: Inputs) -> None:
    logits = inputs.hidden_NH @ inputs.weight_VH.T
    banned = torch.zeros(VOCAB).index_fill(0, torch.tensor(BANNED), -torch.inf)
    expected_N = F.cross_entropy((logits + banned) / 3, inputs.targets_N, reduction="none")
    actual_N = chunked.score_function(*inputs[:3], expected_N.detach(), 3.0, BANNED)
    assert_same(actual_N, expected_N, inputs)


@torch.no_grad()
def test_logits_come_in_short_runs(inputs: Inputs) -> None:
    found = [
        (rows, logits.clone())
        for rows, logits in chunked.logit_chunks(*inputs[:2], dtype=torch.float32)
    ]
    assert [len(logits) for _, logits in found] == [2, 2, 1] * 4 + [2, 1]
    torch.testing.assert_close(
        torch.cat([logits for _, logits in found]), inputs.hidden_NH @ inputs.weight_VH.T
    )
    numbers = torch.arange(ROWS)
    assert torch.equal(torch.cat([numbers[rows] for rows, _ in found]), numbers)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_log_sum_exp(inputs: Inputs, temperature: float) -> None:
    # So large that exp alone would overflow, and with entries that must not count.
    logits_NV = (100 * inputs.hidden_NH @ inputs.weight_VH.T).detach()
    logits_NV[:, BANNED[0]], logits_NV[:, BANNED[1]] = -torch.inf, -1e9
    expected_N = (logits_NV / temperature).logsumexp(dim=-1)
    torch.testing.assert_close(log_sum_exp(logits_NV, temperature), expected_N)


def test_no_rows(inputs: Inputs) -> None:
    hidden_0H = inputs.hidden_NH[:0]
    nll_0 = chunked.token_cross_entropy(
        hidden_0H, inputs.weight_VH, inputs.targets_N[:0], torch.ones(0)
    )
    (grad_VH,) = torch.autograd.grad(nll_0.sum(), [inputs.weight_VH])
    assert not grad_VH.any()


def test_under_autocast_master_weights_get_float32_gradients(inputs: Inputs) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nll_N = chunked.token_cross_entropy(*inputs[:3])
    assert nll_N.dtype == torch.float32
    torch.testing.assert_close(nll_N, plain(inputs), rtol=0.05, atol=0.1)
    for actual, expected in zip(
        gradients(nll_N, inputs), gradients(plain(inputs), inputs), strict=True
    ):
        assert actual.dtype == torch.float32
        assert (actual - expected).abs().max() < 0.05 * expected.abs().max()
