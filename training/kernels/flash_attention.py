"""Thought attention by flash attention kernels: the same values as `training.kernels.attention`.

The keys that a path's token attends to are of three kinds. Each kind is one ordinary attention to a
kernel, with its own choice of what counts as a query head and what as its queries:

| keys                                                | a query head is   | its queries are    |
|-----------------------------------------------------|-------------------|--------------------|
| past: the text before the positions, all of it seen | a key head        | every token        |
| present: the text at the positions, causal          | a token of a path | the positions      |
| own: the path itself, causal                        | a query head      | the path's tokens  |

The outputs are merged by their log Σ exp. A kernel's backward pass recomputes its weights as
exp(score - log Σ exp); given output and log Σ exp of all three kinds together, these are the
weights of the joint softmax.

Shapes: as in `training.kernels.attention`; X stands for D or 1.
"""

import itertools
import math
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

_flash = torch.ops.aten._scaled_dot_product_flash_attention
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward


class PathInputs(NamedTuple):
    """Query, text keys and values, own keys and values of `path_attention`."""

    query_BGCPQLD: Tensor
    text_key_BGJD: Tensor
    text_value_BGJD: Tensor
    own_key_BGCPMD: Tensor
    own_value_BGCPMD: Tensor


class Attended(NamedTuple):
    """What a kernel returns: output, log Σ exp, and the state that its backward pass needs."""

    out: Tensor
    log_sum: Tensor
    state: tuple[Any, ...]


class _Layout(NamedTuple):
    """Which dimensions of (B, G, C, P, Q, L) are a kernel's batch, its heads and its queries."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]

    def to_kernel(self, x_BGCPQLX: Tensor) -> Tensor:
        """(batch, heads, queries, X)."""
        shape = x_BGCPQLX.shape
        sizes = [math.prod(shape[dim] for dim in dims) for dims in self]
        return x_BGCPQLX.permute(*itertools.chain(*self), -1).reshape(*sizes, shape[-1])

    def from_kernel(self, x: Tensor, like_BGCPQLD: Tensor) -> Tensor:
        """(B, G, C, P, Q, L, X)."""
        order = [*itertools.chain(*self)]
        laid = x.reshape(*(like_BGCPQLD.shape[dim] for dim in order), x.shape[-1])
        return laid.permute(*(order.index(dim) for dim in range(len(order))), -1)


_B, _G, _C, _P, _Q, _L = range(6)
_PAST = _Layout((_B,), (_G,), (_C, _P, _Q, _L))
_PRESENT = _Layout((_B,), (_G, _P, _Q, _L), (_C,))
_OWN = _Layout((_B, _C, _P), (_G, _Q), (_L,))


class KeyKind(NamedTuple):
    """Keys and values of one kind, (batch, key heads, keys, D); query heads share key heads."""

    layout: _Layout
    key: Tensor
    value: Tensor
    causal: bool


def supports(query: Tensor) -> bool:
    """Whether there is a flash kernel for (…, D) queries: on a GPU of the Ampere generation or
    later, in half precision.
    """
    size = query.shape[-1]
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.float16, torch.bfloat16)
        and size % 8 == 0
        and size <= 256
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def attend(query: Tensor, kind: KeyKind, scaling: float) -> Attended:
    """A kernel's forward pass; the queries are in its layout."""
    out, log_sum, *state, _ = _flash(query, kind.key, kind.value, 0.0, kind.causal, scale=scaling)
    return Attended(out, log_sum, tuple(state))


def attend_backward(
    grad: Tensor, query: Tensor, kind: KeyKind, whole: Attended, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, where the kind is a part of the whole."""
    *lengths, seed, offset = whole.state
    grads: tuple[Tensor, Tensor, Tensor] = _flash_backward(
        grad,
        query,
        kind.key,
        kind.value,
        whole.out,
        whole.log_sum,
        *lengths,
        0.0,
        kind.causal,
        seed,
        offset,
        scale=scaling,
    )
    return grads


def _kinds(inputs: PathInputs) -> Iterator[KeyKind]:
    query, text_key, text_value, own_key, own_value = inputs
    positions, queries, keys = query.shape[2], query.shape[5], own_key.shape[4]
    assert queries in (1, keys)
    past = text_key.shape[2] - positions
    if past:
        yield KeyKind(_PAST, text_key[:, :, :past], text_value[:, :, :past], causal=False)
    yield KeyKind(_PRESENT, text_key[:, :, past:], text_value[:, :, past:], causal=True)
    own = [x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2) for x in (own_key, own_value)]
    yield KeyKind(_OWN, own[0], own[1], causal=queries > 1)


class FlashAttention(torch.autograd.Function):
    """`path_attention`: takes the fields of `PathInputs` and the scaling."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, scaling = arguments
        inputs = PathInputs(*tensors)
        query = inputs.query_BGCPQLD
        outs, log_sums, ctx.states = [], [], []
        for kind in _kinds(inputs):
            found = attend(kind.layout.to_kernel(query), kind, scaling)
            outs.append(kind.layout.from_kernel(found.out, query))
            log_sums.append(kind.layout.from_kernel(found.log_sum[..., None], query))
            ctx.states.append(found.state)
        log_sum = reduce(torch.logaddexp, log_sums)
        shares = ((part - log_sum).exp() for part in log_sums)
        parts = (out * share for out, share in zip(outs, shares, strict=True))
        out = reduce(torch.add, parts).to(query.dtype)
        ctx.save_for_backward(*inputs, out, log_sum)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, out, log_sum = ctx.saved_tensors
        inputs = PathInputs(*tensors)
        grad_query = torch.zeros_like(out, dtype=torch.float32)
        grad_keys, grad_values = [], []
        for kind, state in zip(_kinds(inputs), ctx.states, strict=True):
            to_kernel = kind.layout.to_kernel
            whole = Attended(to_kernel(out), to_kernel(log_sum)[..., 0].contiguous(), state)
            grad, grad_key, grad_value = attend_backward(
                to_kernel(gradients[0]), to_kernel(inputs.query_BGCPQLD), kind, whole, ctx.scaling
            )
            grad_query += kind.layout.from_kernel(grad, out)
            grad_keys.append(grad_key)
            grad_values.append(grad_value)
        return (
            grad_query.to(out.dtype),
            *(torch.cat(text, dim=2) for text in (grad_keys[:-1], grad_values[:-1])),
            *(_own_back(own[-1], inputs.own_key_BGCPMD) for own in (grad_keys, grad_values)),
            None,
        )


def _own_back(grad: Tensor, like_BGCPMD: Tensor) -> Tensor:
    """(B·C·P, G, M, D) to (B, G, C, P, M, D)."""
    sequences, _, positions, per_position = like_BGCPMD.shape[:4]
    grad_BCPGMD: Tensor = grad.unflatten(0, (sequences, positions, per_position))
    return grad_BCPGMD.movedim(3, 1)
