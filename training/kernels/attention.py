"""Attention of a path's tokens: over the text up to the path's position and over the path itself.

The scores of a position's path tokens run over two kinds of keys: the text's, which all paths
share, and the path's own. Both kinds go through one softmax but are never laid side by side, and
only a few positions are computed at a time: time and memory are linear in the length of a path. The
scores are recomputed in the backward pass. Where flash attention kernels are available, they are
used (`training.kernels.flash_attention`), but not for texts of several documents, which do not see
each other.

Shapes: B sequences, G key-value heads, Q query heads of each, T text positions, C consecutive ones
of them, P thoughts per position, L path tokens that are queries, M path tokens that are keys
(M ≥ L; the queries are the last L of them), D head size; J text keys that the last of C positions
sees (the one before it sees J - 1 …), R = P·Q·L score rows of a position.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.kernels import flash_attention
from training.kernels.softmax import softmax_and_log_sum

CHUNK_SCORES = {"cpu": 2**19, "cuda": 2**26}
"""Scores that exist at a time; on a CPU they should fit into its caches."""


class _Scores(NamedTuple):
    """Scores or softmax weights: text part (B·G, C·R, J), own part (B·G·C·P, Q·L, M)."""

    text: Tensor
    own: Tensor


class _Keys(NamedTuple):
    """Keys or values that a chunk of positions sees: (B·G, J, D) and (B·G·C·P, M, D)."""

    text: Tensor
    own: Tensor


class _Chunk(NamedTuple):
    """Some of the positions, and the text keys that the last of them sees."""

    positions: slice
    text: slice


def _chunks(query_BGCPQLD: Tensor, text_keys: int, own_keys: int) -> Iterator[_Chunk]:
    """Positions in runs whose scores fit into `CHUNK_SCORES`, at least one position each."""
    positions = query_BGCPQLD.shape[2]
    rows = query_BGCPQLD[:, :, 0, ..., 0].numel()
    size = max(1, CHUNK_SCORES[query_BGCPQLD.device.type] // (rows * (text_keys + own_keys)))
    for first in range(0, positions, size):
        last = min(first + size, positions)
        yield _Chunk(slice(first, last), slice(0, text_keys - positions + last))


def _keys(text_BGJD: Tensor, own_BGCPMD: Tensor, chunk: _Chunk) -> _Keys:
    return _Keys(
        text_BGJD[:, :, chunk.text].flatten(0, 1), own_BGCPMD[:, :, chunk.positions].flatten(0, 3)
    )


def _products(query: Tensor, keys: _Keys) -> _Scores:
    """query · key for a chunk of queries (B, G, C, P, Q, L, D)."""
    text_rows = query.reshape(len(keys.text), -1, query.shape[-1])
    own_rows = query.reshape(len(keys.own), -1, query.shape[-1])
    return _Scores((text_rows @ keys.text.mT).float(), (own_rows @ keys.own.mT).float())


def _hide_future(scores: _Scores, positions: int, queries: int) -> None:
    """Put -inf where a position would see later text or a path token a later one, in place."""
    text_CRC = scores.text.unflatten(1, (positions, -1))[..., -positions:]
    later_CC = torch.ones(positions, positions, dtype=torch.bool, device=text_CRC.device).triu(1)
    text_CRC.masked_fill_(later_CC[:, None], -torch.inf)
    keys = scores.own.shape[-1]
    own_QLM = scores.own.unflatten(1, (-1, queries))
    later_LM = torch.ones(queries, keys, dtype=torch.bool, device=own_QLM.device)
    own_QLM.masked_fill_(later_LM.triu(1 + keys - queries), -torch.inf)


def _hide_documents(scores: _Scores, first_key_BC: Tensor) -> None:
    """Put -inf where a position would see the text of an earlier document, in place."""
    sequences, positions = first_key_BC.shape
    text_BGCRJ = scores.text.unflatten(1, (positions, -1)).unflatten(0, (sequences, -1))
    key_J = torch.arange(text_BGCRJ.shape[-1], device=text_BGCRJ.device)
    text_BGCRJ.masked_fill_(key_J < first_key_BC[:, None, :, None, None], -torch.inf)


def _rows_like(rows: Tensor, part: Tensor) -> Tensor:
    """One number per score row, for broadcasting over either part."""
    return rows.reshape(*part.shape[:2], 1)


def _sum_values(weights: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """Σ weight · value over one kind of keys, in the shape of the chunk's queries."""
    return (weights.to(values.dtype) @ values).view(like.shape)


class _PathAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        text_key: Tensor,
        text_value: Tensor,
        own_key: Tensor,
        own_value: Tensor,
        scaling: float,
        first_key_BC: Tensor | None,
    ) -> Tensor:
        out = _empty_by_token(query)
        log_sum = torch.empty(query.shape[:-1], device=query.device)
        for chunk in _chunks(query, text_key.shape[2], own_key.shape[4]):
            at = (slice(None), slice(None), chunk.positions)
            first_key = None if first_key_BC is None else first_key_BC[:, chunk.positions]
            scores = _scores(query[at] * scaling, _keys(text_key, own_key, chunk), first_key)
            values = _keys(text_value, own_value, chunk)
            out[at], log_sum[at] = _merge(scores, values, like=query[at])
        kept = (query, text_key, text_value, own_key, own_value, out, log_sum, first_key_BC)
        ctx.save_for_backward(*kept)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *kept, out, log_sum, first_key_BC = ctx.saved_tensors
        query, text_key, text_value, own_key, own_value = kept
        (grad_out,) = gradients
        grad_query = torch.empty_like(query)
        # All positions add to the text's gradients: summed in float32, whatever the dtype.
        grad_text_key = torch.zeros_like(text_key, dtype=torch.float32)
        grad_text_value = torch.zeros_like(text_value, dtype=torch.float32)
        grad_own_key, grad_own_value = torch.empty_like(own_key), torch.empty_like(own_value)
        for chunk in _chunks(query, text_key.shape[2], own_key.shape[4]):
            at = (slice(None), slice(None), chunk.positions)
            text = (slice(None), slice(None), chunk.text)
            part, grad_part = query[at] * ctx.scaling, grad_out[at].contiguous()
            keys = _keys(text_key, own_key, chunk)
            first_key = None if first_key_BC is None else first_key_BC[:, chunk.positions]
            weights = _weights(_scores(part, keys, first_key), log_sum[at])
            grad_values = _transposed(weights, grad_part)
            _add_keys(grad_values, grad_text_value[text], grad_own_value[at])
            grad_scores = _products(grad_part, _keys(text_value, own_value, chunk))
            # δ = Σ grad · out: the softmax subtracts it from the gradient of every score of a row.
            delta = (grad_part.float() * out[at].float()).sum(dim=-1)
            _softmax_backward(grad_scores, weights, delta)
            grad_part = _sum_values(grad_scores.text, keys.text, part)
            grad_part += _sum_values(grad_scores.own, keys.own, part)
            torch.mul(grad_part, ctx.scaling, out=grad_query[at])
            _add_keys(_transposed(grad_scores, part), grad_text_key[text], grad_own_key[at])
        return (
            grad_query,
            grad_text_key.to(text_key.dtype),
            grad_text_value.to(text_value.dtype),
            grad_own_key,
            grad_own_value,
            None,
            None,
        )


def _empty_by_token(query_BGCPQLD: Tensor) -> Tensor:
    """An empty output, (B, G, C, P, Q, L, D), that lies in memory as (B, C, P, L, G, Q, D), which
    transformers uses without a copy.
    """
    sequences, heads, positions, per_position, queries, length, size = query_BGCPQLD.shape
    out = query_BGCPQLD.new_empty(
        (sequences, positions, per_position, length, heads, queries, size)
    )
    return out.permute(0, 4, 1, 2, 5, 3, 6)


def _scores(query: Tensor, keys: _Keys, first_key_BC: Tensor | None) -> _Scores:
    """Scaled queries · keys, -inf where a token is not seen."""
    scores = _products(query, keys)
    _hide_future(scores, positions=query.shape[2], queries=query.shape[-2])
    if first_key_BC is not None:
        _hide_documents(scores, first_key_BC)
    return scores


def _merge(scores: _Scores, values: _Keys, like: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over both kinds of keys, and log Σ exp of all scores of a row.

    Attention is computed over each kind alone, and the outputs are weighted by exp(log Σ exp of the
    kind - log Σ exp of all).
    """
    (text, text_sum), (own, own_sum) = (softmax_and_log_sum(part) for part in scores)
    text_sum, own_sum = (part.view(like.shape[:-1]) for part in (text_sum, own_sum))
    log_sum = torch.logaddexp(text_sum, own_sum)
    text_share, own_share = ((x - log_sum).exp_()[..., None] for x in (text_sum, own_sum))
    out = _sum_values(text, values.text, like).mul(text_share)
    return out.addcmul_(_sum_values(own, values.own, like), own_share), log_sum


def _weights(scores: _Scores, log_sum: Tensor) -> _Scores:
    """The softmax of all scores of a row together, in place."""
    return _Scores(*(part.sub_(_rows_like(log_sum, part)).exp_() for part in scores))


def _add_keys(found: _Keys, text: Tensor, own: Tensor) -> None:
    """Add a chunk's part of the text's gradient; the gradient of its own keys is complete."""
    text += found.text.view_as(text)
    own.copy_(found.own.view_as(own))


def _softmax_backward(grad: _Scores, weights: _Scores, delta: Tensor) -> None:
    """weight · (gradient - δ), in place."""
    for part, weight in zip(grad, weights, strict=True):
        part.sub_(_rows_like(delta, part)).mul_(weight)


def _transposed(weights: _Scores, rows: Tensor) -> _Keys:
    """Σ weight · row over all rows that attend to a key, for both kinds of keys."""
    return _Keys(
        *(
            part.to(rows.dtype).mT @ rows.reshape(*part.shape[:2], rows.shape[-1])
            for part in weights
        )
    )


def path_attention(
    query_BGCPQLD: Tensor,
    text_key_BGJD: Tensor,
    text_value_BGJD: Tensor,
    own_key_BGCPMD: Tensor,
    own_value_BGCPMD: Tensor,
    scaling: float,
    first_key_BC: Tensor | None = None,
) -> Tensor:
    """softmax(scaling · q·k) v of path tokens over text and own keys, in the query's shape.

    `first_key_BC`: the first text key that each position sees, where it does not see all.
    """
    inputs = (query_BGCPQLD, text_key_BGJD, text_value_BGJD, own_key_BGCPMD, own_value_BGCPMD)
    out: Tensor
    if first_key_BC is None and flash_attention.supports(query_BGCPQLD):
        out = flash_attention.FlashAttention.apply(*inputs, scaling)  # type: ignore[no-untyped-call]  # torch's
    else:
        out = _PathAttention.apply(*inputs, scaling, first_key_BC)  # type: ignore[no-untyped-call]
    return out
