"""Random queries, keys and values of paths, and their attention with one dense mask."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.thoughts.layout import PathLayout, may_see

SEQUENCES, KEY_HEADS, QUERY_HEADS, SIZE = 2, 2, 3, 4


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


def dense_attention(
    query: Tensor,
    text_key: Tensor,
    text_value: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    first_key_BC: Tensor | None = None,
) -> Tensor:
    """The same with one mask over all tokens."""
    positions, per_position, _, length = query.shape[2:6]
    layout = PathLayout(positions, per_position, length)
    index = torch.arange(layout.tokens)
    mask = may_see(layout, index[positions:, None], index[None, :])
    if first_key_BC is not None:
        first = first_key_BC.repeat_interleave(per_position * length, dim=1)[..., None]
        mask = (mask & ((index >= positions) | (index >= first)))[:, None]
    key = torch.cat([text_key, own_key.flatten(2, 4)], dim=2)
    value = torch.cat([text_value, own_value.flatten(2, 4)], dim=2)
    flat_query = query.movedim(4, 2).flatten(1, 2).flatten(2, 4)
    out = F.scaled_dot_product_attention(
        flat_query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    return out.view(
        *query.shape[:2], QUERY_HEADS, positions, per_position, length, query.shape[-1]
    ).movedim(2, 4)
