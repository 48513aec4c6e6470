"""Softmax and its normaliser in as few looks at the numbers as possible."""

from torch import Tensor


def softmax_and_log_sum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """softmax over the last dimension, and log Σ exp without that dimension.

    softmax(z)_j = exp(z_j - log Σ exp z), and for the largest z_j the left side is not small.
    """
    probability = logits.softmax(dim=-1)
    return probability, logits.amax(dim=-1) - probability.amax(dim=-1).log()
