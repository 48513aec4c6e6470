"""Thought attention: a path's token sees the text up to its position and its own path, no more.

The scores of a position's path tokens run over two kinds of keys: the text's, which all paths
share, and their own. Both kinds are softmaxed together but never laid side by side, and only for a
few positions at a time: time and memory are linear in the length of a path. The scores are computed
anew in the backward pass. Where flash kernels can do it, they do (`training.kernels.flash_attention`).

It is plugged into transformers as the attention implementation `IMPLEMENTATION`, so that every
trunk whose attention goes through that interface works unchanged. Sliding windows are not modelled
(`training.thoughts.batch.check_window` refuses texts longer than one).

Shapes: B sequences, G key-value heads, Q query heads of each, T text positions, C consecutive ones
of them, P thoughts per position, L path tokens that ask, M path tokens that answer (M ≥ L; the last
L are those that ask), D head size; J text keys that the last of C positions sees (the one before it
sees J - 1 …), R = P·Q·L score rows of a position.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from training.kernels import flash_attention as flash
from training.errors import UsageError
from training.kernels.softmax import softmax_and_log_sum

IMPLEMENTATION = "quiet_star"
CHUNK_SCORES = {"cpu": 2**19, "cuda": 2**26}
"""Scores that exist at a time: on a CPU they should stay in its caches."""


class _Scores(NamedTuple):
    """Scores, or what has become of them: text part (B·G, C·R, J), own part (B·G·C·P, Q·L, M)."""

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


def _hide_future(scores: _Scores, positions: int, asking: int) -> None:
    """Put -inf where a position would see later text or a path token a later one, in place."""
    text_CRC = scores.text.unflatten(1, (positions, -1))[..., -positions:]
    later_CC = torch.ones(positions, positions, dtype=torch.bool, device=text_CRC.device).triu(1)
    text_CRC.masked_fill_(later_CC[:, None], -torch.inf)
    answering = scores.own.shape[-1]
    own_QLM = scores.own.unflatten(1, (-1, asking))
    later_LM = torch.ones(asking, answering, dtype=torch.bool, device=own_QLM.device)
    own_QLM.masked_fill_(later_LM.triu(1 + answering - asking), -torch.inf)


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
    ) -> Tensor:
        out = _empty_by_token(query)
        log_sum = torch.empty(query.shape[:-1], device=query.device)
        for chunk in _chunks(query, text_key.shape[2], own_key.shape[4]):
            at = (slice(None), slice(None), chunk.positions)
            scores = _scores(query[at] * scaling, _keys(text_key, own_key, chunk))
            values = _keys(text_value, own_value, chunk)
            out[at], log_sum[at] = _merge(scores, values, like=query[at])
        ctx.save_for_backward(query, text_key, text_value, own_key, own_value, out, log_sum)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, text_key, text_value, own_key, own_value, out, log_sum = ctx.saved_tensors
        (grad_out,) = gradients
        grad_query = torch.empty_like(query)
        # Every position adds to the text's: in float32, whatever the keys are in.
        grad_text_key = torch.zeros_like(text_key, dtype=torch.float32)
        grad_text_value = torch.zeros_like(text_value, dtype=torch.float32)
        grad_own_key, grad_own_value = torch.empty_like(own_key), torch.empty_like(own_value)
        for chunk in _chunks(query, text_key.shape[2], own_key.shape[4]):
            at = (slice(None), slice(None), chunk.positions)
            text = (slice(None), slice(None), chunk.text)
            part, grad_part = query[at] * ctx.scaling, grad_out[at].contiguous()
            keys = _keys(text_key, own_key, chunk)
            weights = _weights(_scores(part, keys), log_sum[at])
            grad_values = _transposed(weights, grad_part)
            _add_keys(grad_values, grad_text_value[text], grad_own_value[at])
            grad_scores = _products(grad_part, _keys(text_value, own_value, chunk))
            # What the softmax takes off the gradient of every score of a row.
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
        )


def _empty_by_token(query_BGCPQLD: Tensor) -> Tensor:
    """Room for an output, (B, G, C, P, Q, L, D), that lies in memory as (B, C, P, L, G, Q, D):
    transformers takes it from there without a copy.
    """
    sequences, heads, positions, per_position, queries, length, size = query_BGCPQLD.shape
    out = query_BGCPQLD.new_empty(
        (sequences, positions, per_position, length, heads, queries, size)
    )
    return out.permute(0, 4, 1, 2, 5, 3, 6)


def _scores(query: Tensor, keys: _Keys) -> _Scores:
    """Scaled queries · keys, -inf where a token is not seen."""
    scores = _products(query, keys)
    _hide_future(scores, positions=query.shape[2], asking=query.shape[-2])
    return scores


def _merge(scores: _Scores, values: _Keys, like: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over both kinds of keys, and log Σ exp of all scores of a row.

    Each kind is attended to by itself; its output's share of the whole is known by its log Σ exp.
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
    """Add a chunk's share to the text's gradient; it is all there is to its positions' own."""
    text += found.text.view_as(text)
    own.copy_(found.own.view_as(own))


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
    query_BGCPQLD: Tensor,
    text_key_BGJD: Tensor,
    text_value_BGJD: Tensor,
    own_key_BGCPMD: Tensor,
    own_value_BGCPMD: Tensor,
    scaling: float,
) -> Tensor:
    """softmax(scaling · q·k) v of path tokens over text and own keys, in the query's shape."""
    kernels = flash.FlashAttention if flash.takes(query_BGCPQLD) else _PathAttention
    out: Tensor = kernels.apply(  # type: ignore[no-untyped-call]  # torch's
        query_BGCPQLD, text_key_BGJD, text_value_BGJD, own_key_BGCPMD, own_value_BGCPMD, scaling
    )
    return out


class Text:
    """Attention while a text is read: causal, and keys and values of each layer are kept for its
    paths.

    With `needs_grad`, `UsageError` is raised where they come without a graph, which is what
    reentrant gradient checkpointing does to them.
    """

    def __init__(self, *, needs_grad: bool) -> None:
        self.needs_grad = needs_grad
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Query (B, G·Q, T, D), keys and values (B, G, T, D); out like the query."""
        if self.needs_grad and not (key.requires_grad and value.requires_grad):
            raise UsageError("thoughts need gradient checkpointing with use_reentrant=False")
        # When checkpointing reads the layer again, what is in use already is the same.
        self._kept.setdefault(layer, (key, value))
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )

    def keys_values(self, layer: int, positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first so many positions, (B, G, J, D) each."""
        key, value = self._kept[layer]
        return key[:, :, :positions], value[:, :, :positions]


class WholePaths:
    """Attention while all paths of the positions [first, last) of a text are read in one go."""

    def __init__(self, text: Text, first: int, last: int, per_position: int) -> None:
        self.text = text
        self.last = last
        self.paths = (last - first, per_position)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Query (B, G·Q, C·P·L, D), keys and values (B, G, C·P·L, D); out like the query."""
        query, key, value = (x.unflatten(2, (*self.paths, -1)) for x in (query, key, value))
        out = path_attention(
            _by_key_head(query, key.shape[1]),
            *self.text.keys_values(layer, self.last),
            key,
            value,
            scaling,
        )
        return _by_query_head(out)


class GrowingPaths:
    """Attention while thoughts are sampled, one token of every path of a text at a time.

    The paths are those of so many positions from `first` on. Keeps keys and values of at most
    `capacity` tokens of a path; call `advance` after each. As long as the paths of a position are
    alike, one of them may be read for all.
    """

    def __init__(
        self, text: Text, positions: int, per_position: int, capacity: int, first: int = 0
    ) -> None:
        self.text = text
        self.last = first + positions
        self.paths = (positions, per_position)
        self.capacity = capacity
        self._token = 0
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def advance(self) -> None:
        """A token of every path has gone through all layers."""
        self._token += 1

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Query (B, G·Q, T·P, D), keys and values (B, G, T·P, D), or one path of each position for
        P; out like the query.
        """
        positions, _ = self.paths
        read = query.shape[2] // positions
        if layer not in self._kept:
            self._kept[layer] = self._room_for(key), self._room_for(value)
        for kept, new in zip(self._kept[layer], (key, value), strict=True):
            kept[..., self._token, :] = new.unflatten(2, (positions, read))
        own_key, own_value = (kept[..., :read, : self._token + 1, :] for kept in self._kept[layer])
        out = path_attention(
            _by_key_head(query.unflatten(2, (positions, read, 1)), key.shape[1]),
            *self.text.keys_values(layer, self.last),
            own_key,
            own_value,
            scaling,
        )
        return _by_query_head(out)

    def _room_for(self, new: Tensor) -> Tensor:
        sequences, heads, _, size = new.shape
        return new.new_empty((sequences, heads, *self.paths, self.capacity, size))


def _by_key_head(query_BHCPLD: Tensor, key_heads: int) -> Tensor:
    """(B, G·Q, C, P, L, D) to (B, G, C, P, Q, L, D)."""
    query_BGQCPLD: Tensor = query_BHCPLD.unflatten(1, (key_heads, -1))
    return query_BGQCPLD.movedim(2, 4).contiguous()


def _by_query_head(out_BGCPQLD: Tensor) -> Tensor:
    """(B, G, C, P, Q, L, D) to (B, G·Q, C·P·L, D)."""
    out_BGQCPLD: Tensor = out_BGCPQLD.movedim(4, 2)
    return out_BGQCPLD.flatten(3, 5).flatten(1, 2)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    thoughts: Text | WholePaths | GrowingPaths | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers calls; out (B, N, heads, D).

    Without `thoughts` it is ordinary attention, causal unless a mask says otherwise; where keys are
    cached, the queries are the last of them.
    """
    # Under autocast, rotary embeddings and norms leave float32 behind.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if thoughts is None:
        asking, answering = query.shape[2], key.shape[2]
        if attention_mask is None and 1 < asking < answering:
            attention_mask = torch.ones(
                asking, answering, dtype=torch.bool, device=query.device
            ).tril(answering - asking)
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=dropout,
            is_causal=attention_mask is None and asking > 1,
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
