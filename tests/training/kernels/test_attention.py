"""Thought attention: the mask of the paper's figure, and how many scores it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import training.kernels.attention as attention
from tests.support.checkpoints import write_random_checkpoint
from training.thoughts.layout import Layout, may_see, position_ids
from training.trainer.checkpoint import load_trunk

SEQUENCES, KEY_HEADS, QUERY_HEADS, SIZE = 2, 2, 3, 4


def test_who_sees_whom() -> None:
    """Two text tokens, two paths of two tokens each: rows ask, columns answer."""
    layout = Layout(positions=2, per_position=2, path_length=2)
    index = torch.arange(layout.tokens)
    seen = may_see(layout, index[:, None], index[None, :])
    expected = [
        "10 00 00 00 00",
        "11 00 00 00 00",
        "10 10 00 00 00",
        "10 11 00 00 00",
        "10 00 10 00 00",
        "10 00 11 00 00",
        "11 00 00 10 00",
        "11 00 00 11 00",
        "11 00 00 00 10",
        "11 00 00 00 11",
    ]
    shown = ["".join("01"[x] for x in row) for row in seen.tolist()]
    assert shown == [row.replace(" ", "") for row in expected]
    assert position_ids(layout, index.device).tolist() == [[0, 1, 1, 2, 1, 2, 2, 3, 2, 3]]


def random_paths(positions: int, per_position: int, length: int, size: int = SIZE) -> list[Tensor]:
    """Queries, text keys and values, own keys and values."""
    generator = torch.Generator().manual_seed(0)
    text = (SEQUENCES, KEY_HEADS, positions, size)
    own = (SEQUENCES, KEY_HEADS, positions, per_position, length, size)
    query = (SEQUENCES, KEY_HEADS, positions, per_position, QUERY_HEADS, length, size)
    return [
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in (query, text, text, own, own)
    ]


def dense(
    query: Tensor, text_key: Tensor, text_value: Tensor, own_key: Tensor, own_value: Tensor
) -> Tensor:
    """The same with one mask over all tokens."""
    positions, per_position, _, length = query.shape[2:6]
    layout = Layout(positions, per_position, length)
    index = torch.arange(layout.tokens)
    mask = may_see(layout, index[positions:, None], index[None, :])
    key = torch.cat([text_key, own_key.flatten(2, 4)], dim=2)
    value = torch.cat([text_value, own_value.flatten(2, 4)], dim=2)
    flat_query = query.movedim(4, 2).flatten(1, 2).flatten(2, 4)
    out = F.scaled_dot_product_attention(
        flat_query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    return out.view(
        *query.shape[:2], QUERY_HEADS, positions, per_position, length, query.shape[-1]
    ).movedim(2, 4)


@pytest.mark.parametrize("scores", [1, 1000, 10**9])
def test_equals_dense_attention(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.CHUNK_SCORES, "cpu", scores)
    inputs = random_paths(positions=5, per_position=2, length=3)
    query, text_key, text_value, own_key, own_value = inputs
    ours = attention.path_attention(query, text_key, text_value, own_key, own_value, 0.3)
    theirs = dense(*inputs)
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
    positions, scores = 256, 2**15
    monkeypatch.setitem(attention.CHUNK_SCORES, "cpu", scores)
    (flops_8, largest_8), (flops_16, largest_16), (flops_32, largest_32) = (
        cost(length, positions) for length in (8, 16, 32)
    )
    # The scores over a path's own keys are the quadratic part: a path is short beside its text.
    assert flops_16 < 2.2 * flops_8
    assert flops_32 < 2.3 * flops_16
    # Arrays the size of the queries and a chunk of scores, of which a dense mask has a thousand.
    assert largest_8 <= largest_16 <= max(scores, 2 * largest_8)
    assert largest_32 <= max(scores, 2 * largest_16)
    assert largest_32 < (positions * 32) ** 2 / 100


@pytest.mark.parametrize("asking", [1, 3])
def test_without_thoughts_the_cache_is_read(asking: int, tmp_path: Path) -> None:
    """A trunk that knows thoughts still goes on with a text that it has read."""
    trunk = load_trunk(write_random_checkpoint(tmp_path, "mistral"))
    attention.plug_into(trunk)
    ids = torch.arange(8, 20)[None]
    with torch.no_grad():
        whole = trunk(ids).logits
        cache = trunk(ids[:, :-asking], use_cache=True).past_key_values
        rest = trunk(ids[:, -asking:], past_key_values=cache).logits
    torch.testing.assert_close(rest, whole[:, -asking:], rtol=1e-4, atol=1e-4)
