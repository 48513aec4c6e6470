"""Thought attention plugged into transformers: texts, and paths of thoughts behind their positions.

`attention_forward` is registered with transformers as the attention implementation
`IMPLEMENTATION`, so that every base model whose attention goes through that interface works
unchanged. Sliding windows are not modelled (`training.thoughts.batch.check_window` refuses texts
that are longer than one).

Shapes: B sequences, G key-value heads, Q query heads of each, T text positions, C consecutive ones
of them, P thoughts per position, L path tokens, D head size, J text keys, N tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from training.errors import UsageError
from training.kernels.attention import path_attention

IMPLEMENTATION = "quiet_star"


class TextAttention:
    """Causal attention over a text; keeps keys and values of each layer for the text's paths.

    A text of several documents has the index of the first token of each token's document,
    `document_start_BT`: nothing attends to another document, and positions begin anew.

    With `needs_grad`, `UsageError` is raised where keys and values come without an autograd graph,
    as they do under reentrant activation checkpointing.
    """

    def __init__(self, *, needs_grad: bool, document_start_BT: Tensor | None = None) -> None:
        self.needs_grad = needs_grad
        self.document_start_BT = document_start_BT
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._mask_B1TT = None
        if document_start_BT is not None:
            index_T = torch.arange(document_start_BT.shape[1], device=document_start_BT.device)
            same_BTT = index_T >= document_start_BT[..., None]
            self._mask_B1TT = (same_BTT & (index_T <= index_T[:, None]))[:, None]

    def positions(self, first: int, last: int, device: torch.device) -> Tensor:
        """The positions [first, last) in their documents, (B, C), or (1, C) where a text is one."""
        index_1C = torch.arange(first, last, device=device)[None]
        start_BT = self.document_start_BT
        return index_1C if start_BT is None else index_1C - start_BT[:, first:last]

    def first_keys(self, first: int, last: int) -> Tensor | None:
        """The first text key that the positions [first, last) see, (B, C); None: the text's."""
        start_BT = self.document_start_BT
        return None if start_BT is None else start_BT[:, first:last]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Query (B, G·Q, T, D), keys and values (B, G, T, D); out like the query."""
        if self.needs_grad and not (key.requires_grad and value.requires_grad):
            raise UsageError("thoughts need gradient checkpointing with use_reentrant=False")
        # When activation checkpointing runs the layer again, the paths already use the first ones.
        self._kept.setdefault(layer, (key, value))
        mask = self._mask_B1TT
        return F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        )

    def keys_values(self, layer: int, positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `positions` tokens, (B, G, J, D) each."""
        key, value = self._kept[layer]
        return key[:, :, :positions], value[:, :, :positions]


class GrowingTextAttention(TextAttention):
    """The same for a text that is prefilled and then decoded token by token, without gradients."""

    def __init__(self) -> None:
        super().__init__(needs_grad=False)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """As `TextAttention.attend` at first; then for one token more at a time, T = 1."""
        if layer not in self._kept:
            return super().attend(layer, query, key, value, scaling)
        assert query.shape[2] == 1  # a single token attends to all keys: no mask is needed
        known_key, known_value = self._kept[layer]
        key, value = torch.cat([known_key, key], dim=2), torch.cat([known_value, value], dim=2)
        self._kept[layer] = key, value
        return F.scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=True)


class WholePathAttention:
    """Attention of complete paths, all those of the positions [first, last) of a text at once."""

    def __init__(self, text: TextAttention, first: int, last: int, per_position: int) -> None:
        self.text = text
        self.last = last
        self.paths = (last - first, per_position)
        self.first_key_BC = text.first_keys(first, last)

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
            self.first_key_BC,
        )
        return _by_query_head(out)


class GrowingPathAttention:
    """Attention of paths that are decoded, one token of every path of a text at a time.

    The paths are those of `positions` positions from `first` on. Keeps keys and values of at most
    `capacity` tokens of a path; call `advance` after each. As long as the paths of a position are
    equal, a single one of them may be fed for all.
    """

    def __init__(
        self,
        text: TextAttention,
        positions: int,
        per_position: int,
        capacity: int,
        first: int = 0,
    ) -> None:
        self.text = text
        self.last = first + positions
        self.paths = (positions, per_position)
        self.first_key_BC = text.first_keys(first, self.last)
        self.capacity = capacity
        self._token = 0
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def advance(self) -> None:
        """Keep the latest token of every path; without this the next one replaces it."""
        self._token += 1

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Query (B, G·Q, C·P, D), keys and values (B, G, C·P, D), or one path of each position for
        P; out like the query.
        """
        positions, _ = self.paths
        fed = query.shape[2] // positions
        if layer not in self._kept:
            self._kept[layer] = self._room_for(key), self._room_for(value)
        for kept, new in zip(self._kept[layer], (key, value), strict=True):
            kept[..., self._token, :] = new.unflatten(2, (positions, fed))
        own_key, own_value = (kept[..., :fed, : self._token + 1, :] for kept in self._kept[layer])
        out = path_attention(
            _by_key_head(query.unflatten(2, (positions, fed, 1)), key.shape[1]),
            *self.text.keys_values(layer, self.last),
            own_key,
            own_value,
            scaling,
            self.first_key_BC,
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
    thought_attention: TextAttention | WholePathAttention | GrowingPathAttention | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention with the signature that transformers calls; out (B, N, heads, D).

    Without `thought_attention` it is ordinary attention, causal unless there is a mask; where a KV
    cache holds earlier keys, the queries are the last tokens.
    """
    # Under autocast, rotary embeddings and norms leave float32 behind.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if thought_attention is None:
        out = _ordinary_attention(query, key, value, attention_mask, scaling, dropout)
    else:
        layer = module.layer_idx
        assert isinstance(layer, int)
        out = thought_attention.attend(layer, query, key, value, scaling)
    return out.transpose(1, 2).contiguous(), None


def _ordinary_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float,
) -> Tensor:
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and 1 < queries < keys:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
        mask = mask.tril(keys - queries)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and queries > 1,
        scale=scaling,
        enable_gqa=True,
    )


def use_thought_attention(base_model: PreTrainedModel) -> None:
    """Let a base model's attention take `thought_attention` as a keyword argument."""
    AttentionInterface.register(IMPLEMENTATION, attention_forward)
    base_model.set_attn_implementation(IMPLEMENTATION)
