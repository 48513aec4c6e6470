"""The order of tokens where the base model runs over a text and all its thoughts at once.

    [ x_0 … x_T-1 | path of thought 0 of x_0, path of thought 1 of x_0, path of thought 0 of x_1 … ]

A path of x_i is START, t_1 … t_b, END, x_i+1 … x_i+S-1. Its l-th token has position i + 1 + l and
attends to the text up to x_i and to its own path up to l (paper, figure 3).

Shapes: T text positions, P thoughts per position, L tokens of a path, N = T + T·P·L.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PathLayout(NamedTuple):
    """The numbers T, P and L."""

    positions: int
    per_position: int
    path_length: int

    @property
    def tokens(self) -> int:
        """N."""
        return self.positions * (1 + self.per_position * self.path_length)


def position_ids(layout: PathLayout, device: torch.device) -> Tensor:
    """The rotary position of every token, (1, N)."""
    text_T = torch.arange(layout.positions, device=device)
    step_L = torch.arange(1, layout.path_length + 1, device=device)
    path_TPL = (text_T[:, None, None] + step_L).expand(-1, layout.per_position, -1)
    return torch.cat([text_T, path_TPL.reshape(-1)])[None]


def may_see(layout: PathLayout, query: Tensor, key: Tensor) -> Tensor:
    """Whether token `query` attends to token `key`, elementwise; both are indices into N."""
    positions, per_position, length = layout
    thought_of_query = (query - positions) // length
    text_position = torch.where(query < positions, query, thought_of_query // per_position)
    own_path = thought_of_query == (key - positions) // length
    return torch.where(key < positions, key <= text_position, own_path & (key <= query))
