"""Softmax and its normaliser in as few passes over the logits as possible."""

import math

import torch
from torch import Tensor

_BITS_PER_NAT = math.log2(math.e)


def softmax_and_log_sum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """softmax over the last dimension, and log Σ exp without that dimension.

    softmax(z)_j = exp(z_j - log Σ exp z), and for the largest z_j the left side is not small.
    """
    probability = logits.softmax(dim=-1)
    return probability, logits.amax(dim=-1) - probability.amax(dim=-1).log()


def log_sum_exp(logits: Tensor, temperature: float) -> Tensor:
    """log Σ exp(logits / temperature) over the last dimension; overwrites the logits.

    On a CPU a power of 2 takes a third of the time of torch's exp, which torch's log-sum-exp uses.
    """
    scale = _BITS_PER_NAT / temperature
    largest = logits.amax(dim=-1, keepdim=True)
    torch.add(largest * -scale, logits, alpha=scale, out=logits).exp2_()
    return logits.sum(dim=-1).log() + largest.squeeze(-1) / temperature
