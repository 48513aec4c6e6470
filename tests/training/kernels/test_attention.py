"""Attention of paths: equal to attention with one dense mask, at a cost linear in their length."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.support.training.paths import dense_attention, random_paths
from training.kernels import attention

FIRST_KEYS = [None, [[0, 0, 0, 0, 0], [0, 1, 1, 3, 4]]]


@pytest.mark.parametrize("first_keys", FIRST_KEYS, ids=["one document", "several documents"])
@pytest.mark.parametrize("scores", [1, 1000, 10**9])
def test_equals_dense_attention(
    scores: int, first_keys: list[list[int]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_key_BC = None if first_keys is None else torch.tensor(first_keys)
    monkeypatch.setitem(attention.CHUNK_SCORES, "cpu", scores)
    inputs = random_paths(positions=5, per_position=2, length=3)
    query, text_key, text_value, own_key, own_value = inputs
    ours = attention.path_attention(
        query, text_key, text_value, own_key, own_value, 0.3, first_key_BC
    )
    theirs = dense_attention(query, text_key, text_value, own_key, own_value, first_key_BC)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for actual, expected in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation put out."""

    elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def cost(length: int, positions: int) -> tuple[int, int]:
    """Multiplications and the largest array of attention, forward and backward."""
    query, text_key, text_value, own_key, own_value = random_paths(positions, 1, length)
    largest = LargestTensor()  # type: ignore[no-untyped-call]  # torch's
    with FlopCounterMode(display=False) as flops, largest:
        out = attention.path_attention(query, text_key, text_value, own_key, own_value, 0.3)
        out.backward(torch.ones_like(out))
    return flops.get_total_flops(), largest.elements


def test_work_and_memory_are_linear_in_the_path_length(monkeypatch: pytest.MonkeyPatch) -> None:
    positions, scores = 256, 2**17
    monkeypatch.setitem(attention.CHUNK_SCORES, "cpu", scores)
    (flops_8, largest_8), (flops_16, largest_16), (flops_32, largest_32) = (
        cost(length, positions) for length in (8, 16, 32)
    )
    # The scores over a path's own keys are the quadratic part: a path is short beside its text.
    assert flops_16 < 2.2 * flops_8
    assert flops_32 < 2.3 * flops_16
    # Arrays the size of the queries and a chunk of scores, of which a dense mask has hundreds.
    assert largest_8 <= largest_16 <= max(scores, 2 * largest_8)
    assert largest_32 <= max(scores, 2 * largest_16)
    assert largest_32 < (positions * 32) ** 2 / 100
