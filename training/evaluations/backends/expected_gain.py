"""What thoughts are expected to save, known before they are thought, as the server estimates it."""

import torch
from torch import Tensor

from quietstar_infer.gate import ThoughtGate, prediction_entropy
from training.thoughts.model import QuietThinker


def expected_gains(
    thinker: QuietThinker, gate: ThoughtGate | None, base_NH: Tensor, budget: int
) -> Tensor:
    """In nats, (N,) float32, of thoughts of `budget` tokens at base hidden states: by the
    checkpoint's gate, else the entropy of the base prediction.
    """
    if gate is not None:
        return gate.expected_gain(base_NH, torch.tensor([budget], device=base_NH.device))
    gain_N = torch.empty(len(base_NH), device=base_NH.device)
    for rows, logits_NV in thinker.logits(base_NH):
        gain_N[rows] = prediction_entropy(logits_NV)
    return gain_N
