"""The mixing head: how much the prediction made after a thought replaces the base prediction."""

import torch
from torch import nn


class MixingHead(nn.Sequential):
    """Three-layer ReLU MLP from (base, thought) hidden states to the mixing weight (paper, section
    4.3).

    The output is linear and unbounded, as in the official code: the weight may be negative or above
    1. The positions of the linear layers, 0, 2 and 4, are the official tensor names'
    (`talk_head.0.{0,2,4}`).
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(
            nn.Linear(2 * hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 1, bias=False),
        )

    def weight(self, base_NH: torch.Tensor, thought_NH: torch.Tensor) -> torch.Tensor:
        """The mixing weight of the *thought*, (N, 1); both inputs are hidden states after the base
        model's final norm.
        """
        weight_N1: torch.Tensor = self(torch.cat([base_NH, thought_NH], dim=-1))
        return weight_N1

    @torch.no_grad()
    def start_closed(self) -> None:
        """Zero the last layer, so that w = 0 and the model starts out equal to its base model (as
        in the official first forward).
        """
        last = self[4]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)


def mix(base_NH: torch.Tensor, thought_NH: torch.Tensor, weight_N1: torch.Tensor) -> torch.Tensor:
    """h = (1 - w)·base + w·thought, (N, H).

    Mixing hidden states and mixing logits is the same, since the language-model head is linear
    without bias. The paper writes the weights the other way round (w on the base prediction); here
    w weighs the thought, as in the code.
    """
    return (1 - weight_N1) * base_NH + weight_N1 * thought_NH
