"""Thought attention: a path's token sees the text up to its position and its own path, no more.

The scores of a position's path tokens run over two kinds of keys: the text's, which all paths
share, and their own. Both kinds are softmaxed together but never laid side by side, and only for a
few positions at a time: time and memory are linear in the length of a path. The scores are computed
anew in the backward pass.

It is plugged into transformers as the attention implementation `IMPLEMENTATION`, so that every
trunk whose attention goes through that interface works unchanged. Sliding windows are not modelled
(`training.batch.check_window` refuses texts longer than one).

Shapes: B sequences, G key-value heads, Q query heads of each, T text positions, P thoughts per
position, L path tokens that ask, M path tokens that answer (M ≥ L; the last L are those that ask),
D head size; C positions of a chunk, J text keys that a chunk can see, R = P·Q·L score rows of a
position. Arrays of path tokens are (B, G, T, P, M, D); queries (B, G, T, P, Q, L, D).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from training.layout import Layout

IMPLEMENTATION = "quiet_star"
CHUNK_ELEMENTS = 2**20
"""Scores that exist at a time. More is not faster: a block should stay in the processor's cache."""


class Chunk(NamedTuple):
    """The positions [first, last); they see the text keys [0, last)."""

    first: int
    last: int


def chunks(positions: int, elements_per_position: int) -> Iterator[Chunk]:
    """Positions in runs whose scores fit into `CHUNK_ELEMENTS`, at least one position each."""
    size = max(1, CHUNK_ELEMENTS // elements_per_position)
    for first in range(0, positions, size):
        yield Chunk(first, min(first + size, positions))


class _Scores(NamedTuple):
    """Scores, or what has become of them: text part (B·G, C·R, J), own part (B·G·C·P, Q·L, M)."""

    text: Tensor
    own: Tensor


class _Keys(NamedTuple):
    """Keys or values that a chunk of positions sees: (B·G, J, D) and (B·G·C·P, M, D)."""

    text: Tensor
    own: Tensor


def _keys(text_BGTD: Tensor, own_BGTPMD: Tensor, chunk: Chunk) -> _Keys:
    return _Keys(
        text_BGTD[:, :, : chunk.last].flatten(0, 1),
        own_BGTPMD[:, :, chunk.first : chunk.last].flatten(0, 3),
    )


def _products(query: Tensor, keys: _Keys) -> _Scores:
    """query · key for a chunk of queries (B, G, C, P, Q, L, D)."""
    text_rows = query.reshape(len(keys.text), -1, query.shape[-1])
    own_rows = query.reshape(len(keys.own), -1, query.shape[-1])
    return _Scores((text_rows @ keys.text.mT).float(), (own_rows @ keys.own.mT).float())


def _hide_future(scores: _Scores, chunk: Chunk, asking: int) -> None:
    """Put -inf where a position would see later text or a path token a later one, in place."""
    positions = chunk.last - chunk.first
    text_CRJ = scores.text.unflatten(1, (positions, -1))[..., chunk.first :]
    later_CJ = torch.ones(positions, positions, dtype=torch.bool, device=text_CRJ.device).triu(1)
    text_CRJ.masked_fill_(later_CJ[:, None], -torch.inf)
    answering = scores.own.shape[-1]
    own_QLM = scores.own.unflatten(1, (-1, asking))
    later_LM = torch.ones(asking, answering, dtype=torch.bool, device=own_QLM.device)
    own_QLM.masked_fill_(later_LM.triu(1 + answering - asking), -torch.inf)


def _rows_like(rows: Tensor, part: Tensor) -> Tensor:
    """One number per score row, for broadcasting over either part."""
    return rows.reshape(*part.shape[:2], 1)


def _weighted(weights: _Scores, values: _Keys, like: Tensor) -> Tensor:
    """Σ weight · value over both kinds of keys, in the shape of the chunk's queries."""
    text = (weights.text.to(values.text.dtype) @ values.text).view(like.shape)
    return text.add_((weights.own.to(values.own.dtype) @ values.own).view(like.shape))


class _ThoughtAttention(torch.autograd.Function):
    """softmax(scaling · q·k) v over text and own keys; out like the queries."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        text_key: Tensor,
        text_value: Tensor,
        own_key: Tensor,
        own_value: Tensor,
        scaling: float,
    ) -> Tensor:
        query = query * scaling
        out = torch.empty_like(query)
        log_sum = query.new_empty(query.shape[:-1], dtype=torch.float32)
        for chunk in _chunks_of(query, own_key):
            positions = slice(*chunk)
            part = query[:, :, positions]
            scores = _products(part, _keys(text_key, own_key, chunk))
            _hide_future(scores, chunk, query.shape[-2])
            rows = _log_sum_exp(scores).view(part.shape[:-1])
            log_sum[:, :, positions] = rows
            _to_probabilities(scores, rows)
            values = _keys(text_value, own_value, chunk)
            out[:, :, positions] = _weighted(scores, values, part)
        ctx.save_for_backward(query, text_key, text_value, own_key, own_value, out, log_sum)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, text_key, text_value, own_key, own_value, out, log_sum = ctx.saved_tensors
        grad_out = gradients[0]
        # δ: what the softmax takes off every score's gradient.
        delta = (grad_out.float() * out.float()).sum(dim=-1)
        grad_query = torch.empty_like(query)
        grad_text_key, grad_text_value = (
            torch.zeros_like(x, dtype=torch.float32) for x in (text_key, text_value)
        )
        grad_own_key, grad_own_value = torch.empty_like(own_key), torch.empty_like(own_value)
        for chunk in _chunks_of(query, own_key):
            positions, text = slice(*chunk), slice(0, chunk.last)
            part, grad_part = query[:, :, positions], grad_out[:, :, positions].contiguous()
            keys = _keys(text_key, own_key, chunk)
            weights = _products(part, keys)
            _hide_future(weights, chunk, query.shape[-2])
            _to_probabilities(weights, log_sum[:, :, positions])
            grad_values = _transposed(weights, grad_part)
            grad_text_value[:, :, text] += grad_values.text.view_as(grad_text_value[:, :, text])
            grad_own_value[:, :, positions] = grad_values.own.view_as(own_value[:, :, positions])
            grad_scores = _products(grad_part, _keys(text_value, own_value, chunk))
            _softmax_backward(grad_scores, weights, delta[:, :, positions])
            grad_query[:, :, positions] = _weighted(grad_scores, keys, part)
            grad_keys = _transposed(grad_scores, part)
            grad_text_key[:, :, text] += grad_keys.text.view_as(grad_text_key[:, :, text])
            grad_own_key[:, :, positions] = grad_keys.own.view_as(own_key[:, :, positions])
        return (
            grad_query * ctx.scaling,
            grad_text_key.to(text_key.dtype),
            grad_text_value.to(text_value.dtype),
            grad_own_key,
            grad_own_value,
            None,
        )


def _chunks_of(query: Tensor, own_key: Tensor) -> Iterator[Chunk]:
    positions, keys = query.shape[2], query.shape[2] + own_key.shape[-2]
    rows = query.numel() // query.shape[-1] // positions
    return chunks(positions, rows * keys)


def _log_sum_exp(scores: _Scores) -> Tensor:
    """log Σ exp over both kinds of keys; every row sees at least two, so it is finite."""
    text, own = (part.logsumexp(dim=-1).flatten() for part in scores)
    return torch.logaddexp(text, own)


def _to_probabilities(scores: _Scores, log_sum: Tensor) -> None:
    """exp(score - log Σ exp), in place."""
    for part in scores:
        part.sub_(_rows_like(log_sum, part)).exp_()


def _softmax_backward(grad: _Scores, weights: _Scores, delta: Tensor) -> None:
    """weight · (gradient - δ), in place."""
    for part, weight in zip(grad, weights, strict=True):
        part.sub_(_rows_like(delta, part)).mul_(weight)


def _transposed(weights: _Scores, rows: Tensor) -> _Keys:
    """Σ weight · row over the rows that saw a key, for both kinds of keys."""
    return _Keys(
        *(
            part.to(rows.dtype).mT @ rows.reshape(*part.shape[:2], rows.shape[-1])
            for part in weights
        )
    )


def path_attention(
    query: Tensor,
    text_key: Tensor,
    text_value: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    scaling: float,
) -> Tensor:
    """Attention of path tokens, (B, G, T, P, Q, L, D); the last L of a path's M keys are theirs."""
    out: Tensor = _ThoughtAttention.apply(  # type: ignore[no-untyped-call]  # torch's
        query, text_key, text_value, own_key, own_value, scaling
    )
    return out


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """The text's own attention: query (B, G·Q, T, D), keys and values (B, G, T, D)."""
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )


class WholePaths:
    """Attention while a text and all its paths are read in one go, as `Layout` says."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Query (B, G·Q, N, D), keys and values (B, G, N, D): out like the query."""
        positions, per_position, _ = self.layout
        (text_query, paths_query), (text_key, paths_key), (text_value, paths_value) = (
            (x[:, :, :positions], x[:, :, positions:].unflatten(2, (positions, per_position, -1)))
            for x in (query, key, value)
        )
        text = causal_attention(text_query, text_key, text_value, scaling)
        paths = path_attention(
            _by_key_head(paths_query, key.shape[1]),
            text_key,
            text_value,
            paths_key,
            paths_value,
            scaling,
        )
        return torch.cat([text, _by_query_head(paths)], dim=2)


class GrowingPaths:
    """Attention while thoughts are sampled: first the text, then one more token of every path.

    Keeps keys and values of each layer, at most `capacity` path tokens. `token` counts the path
    tokens read so far; call `advance` after each.
    """

    def __init__(self, per_position: int, capacity: int) -> None:
        self.per_position = per_position
        self.capacity = capacity
        self.token = -1
        self._text: list[tuple[Tensor, Tensor]] = []
        self._own: list[tuple[Tensor, Tensor]] = []

    def advance(self) -> None:
        """The text, or one token of every path, has gone through all layers."""
        self.token += 1

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Text (B, heads, T, D), later path tokens (B, heads, T·P, D): out like the query."""
        if self.token < 0:
            self._text.append((key, value))
            self._own.append((self._empty(key), self._empty(value)))
            return causal_attention(query, key, value, scaling)
        for kept, new in zip(self._own[layer], (key, value), strict=True):
            kept[..., self.token, :] = new.unflatten(2, (-1, self.per_position))
        paths_query = query.unflatten(2, (-1, self.per_position, 1))
        own_key, own_value = (kept[..., : self.token + 1, :] for kept in self._own[layer])
        return _by_query_head(
            path_attention(
                _by_key_head(paths_query, key.shape[1]),
                *self._text[layer],
                own_key,
                own_value,
                scaling,
            )
        )

    def _empty(self, text_BGTD: Tensor) -> Tensor:
        *text, size = text_BGTD.shape
        return text_BGTD.new_empty((*text, self.per_position, self.capacity, size))


def _by_key_head(query_BHTPLD: Tensor, key_heads: int) -> Tensor:
    """(B, G·Q, T, P, L, D) to (B, G, T, P, Q, L, D)."""
    query_BGQTPLD: Tensor = query_BHTPLD.unflatten(1, (key_heads, -1))
    return query_BGQTPLD.movedim(2, 4).contiguous()


def _by_query_head(out_BGTPQLD: Tensor) -> Tensor:
    """(B, G, T, P, Q, L, D) to (B, G·Q, T·P·L, D)."""
    out_BGQTPLD: Tensor = out_BGTPQLD.movedim(4, 2)
    return out_BGQTPLD.flatten(3, 5).flatten(1, 2)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    thoughts: WholePaths | GrowingPaths | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers calls; out (B, N, heads, D).

    Without `thoughts` it is ordinary attention, causal unless a mask says otherwise.
    """
    # Under autocast, rotary embeddings and norms leave float32 behind.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if thoughts is None:
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=dropout,
            is_causal=attention_mask is None,
            scale=scaling,
            enable_gqa=True,
        )
    else:
        layer = module.layer_idx
        assert isinstance(layer, int)
        out = thoughts.attend(layer, query, key, value, scaling)
    return out.transpose(1, 2).contiguous(), None


def plug_into(trunk: PreTrainedModel) -> None:
    """Let a trunk's attention know thoughts."""
    AttentionInterface.register(IMPLEMENTATION, attention_forward)
    trunk.set_attn_implementation(IMPLEMENTATION)
