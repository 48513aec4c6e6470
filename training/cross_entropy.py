"""The language-model head for some rows at a time: no more than a chunk of logits ever exists.

Shapes: N rows, H hidden, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from quietstar_infer.sampling import mask_meta_tokens

CHUNK_LOGITS = 2**22
"""Logits that exist at a time: few enough for the memory to be used again, enough for a matrix
product to run at full speed."""


def token_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    temperature: float = 1.0,
    banned: tuple[int, int] | None = None,
) -> Tensor:
    """-log softmax(W h / temperature) at the target, (N,) float32; `banned` ids have no share.

    The logits are not kept but computed anew in the backward pass.
    """
    dtype = compute_dtype(weight_VH)
    nll_N: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch's
        hidden_NH, weight_VH, targets_N, temperature, banned, dtype
    )
    return nll_N


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What a matrix product with this weight is computed in: autocast's dtype, or the weight's."""
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def logit_chunks(
    hidden_NH: Tensor, weight_VH: Tensor, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows and their logits in float32, which the next run overwrites."""
    weight_VH = weight_VH.to(dtype)
    size = max(1, CHUNK_LOGITS // len(weight_VH))
    buffer = weight_VH.new_empty((min(size, len(hidden_NH)), len(weight_VH)))
    for first in range(0, len(hidden_NH), size):
        part = hidden_NH[first : first + size].to(dtype)
        logits = torch.mm(part, weight_VH.mT, out=buffer[: len(part)])
        yield slice(first, first + len(part)), logits.float()


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        temperature: float,
        banned: tuple[int, int] | None,
        dtype: torch.dtype,
    ) -> Tensor:
        log_sum_N = torch.empty(len(hidden_NH), device=hidden_NH.device)
        target_logit_N = torch.empty_like(log_sum_N)
        for rows, logits in logit_chunks(hidden_NH, weight_VH, dtype):
            _tempered(logits, temperature, banned)
            target_logit_N[rows] = logits.gather(1, targets_N[rows, None]).squeeze(1)
            log_sum_N[rows] = logits.logsumexp(dim=1)
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, log_sum_N)
        ctx.temperature, ctx.banned, ctx.dtype = temperature, banned, dtype
        return log_sum_N - target_logit_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N, log_sum_N = ctx.saved_tensors
        factor_N = gradients[0] / ctx.temperature
        cast_VH = weight_VH.to(ctx.dtype)
        grad_hidden_NH = torch.empty_like(hidden_NH)
        grad_weight_VH = torch.zeros_like(weight_VH)
        for rows, logits in logit_chunks(hidden_NH, weight_VH, ctx.dtype):
            _tempered(logits, ctx.temperature, ctx.banned)
            # d/dz = (softmax(z) - one_hot(target)) · d/dnll, in the logits' own memory.
            logits.sub_(log_sum_N[rows, None]).exp_().mul_(factor_N[rows, None])
            logits.scatter_add_(1, targets_N[rows, None], -factor_N[rows, None])
            grad = logits.to(ctx.dtype)
            grad_hidden_NH[rows] = (grad @ cast_VH).to(hidden_NH.dtype)
            _add_product(grad_weight_VH, grad.mT, hidden_NH[rows].to(ctx.dtype))
        return grad_hidden_NH, grad_weight_VH, None, None, None, None


def _tempered(logits: Tensor, temperature: float, banned: tuple[int, int] | None) -> None:
    """Ban and divide, in place."""
    if banned is not None:
        mask_meta_tokens(logits, banned)
    if temperature != 1:
        logits.div_(temperature)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; where the dtypes differ, sums are kept in the total's."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
