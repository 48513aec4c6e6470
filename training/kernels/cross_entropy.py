"""Cross entropy of the language-model head in chunks of rows: never more logits than a chunk exist.

Shapes: N rows, H hidden, V vocabulary.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from quietstar_infer.sampling import mask_meta_tokens
from training.kernels.softmax import softmax_and_log_sum

CHUNK_LOGITS = {"cpu": 2**23, "cuda": 2**27}
"""Logits that exist at a time."""
CHUNK_ROWS = {"cpu": 256, "cuda": 2**16}
"""Rows that are multiplied with the head at a time: on a CPU more would not be faster."""
RUN_LOGITS = {"cpu": 2**19, "cuda": 2**27}
"""Logits that softmax and sampling process at a time: on a CPU they should fit into its caches,
since they are read several times.
"""


_FROZEN: MutableMapping[Tensor, tuple[tuple[int, int, torch.dtype], Tensor]] = (
    WeakTensorKeyDictionary()
)


def token_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    likely_factor_N: Tensor | None = None,
) -> Tensor:
    """-log softmax(W h) at the target, (N,) float32.

    The logits are not kept but recomputed in the backward pass. Where the loss is expected to be a
    sum of the results times `likely_factor_N` (times any constant), the gradient is computed in the
    forward pass, and the backward pass only scales it if that was right.
    """
    if not torch.is_grad_enabled():
        likely_factor_N = None
    nll_N: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch's
        hidden_NH, weight_VH, targets_N, likely_factor_N, compute_dtype(weight_VH)
    )
    return nll_N


def score_function(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    nll_N: Tensor,
    temperature: float,
    banned: tuple[int, int],
) -> Tensor:
    """`nll_N`, whose values are known from sampling, with the gradient of
    -log softmax(W h / temperature) at the target; `banned` ids are left out of the softmax.
    """
    with_gradient_N: Tensor = _ScoreFunction.apply(  # type: ignore[no-untyped-call]  # torch's
        hidden_NH, weight_VH, targets_N, nll_N, temperature, banned, compute_dtype(weight_VH)
    )
    return with_gradient_N


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of matrix products with this weight: autocast's, or the weight's."""
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _cast(weight_VH: Tensor, dtype: torch.dtype) -> Tensor:
    """The head in the dtype of its products. That of a frozen head is kept: a step needs it once
    for every thought token, and more often.
    """
    if weight_VH.requires_grad or weight_VH.dtype == dtype:
        return weight_VH.to(dtype)
    state = weight_VH.data_ptr(), weight_VH._version, dtype
    known = _FROZEN.get(weight_VH)
    if known is None or known[0] != state:
        known = _FROZEN[weight_VH] = state, weight_VH.detach().to(dtype)
    return known[1]


def logit_chunks(
    hidden_NH: Tensor, weight_VH: Tensor, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows and their logits in float32; the next run overwrites them."""
    for rows, logits in _products(hidden_NH, weight_VH, dtype):
        for run in _runs(logits):
            yield slice(rows.start + run.start, rows.start + run.stop), logits[run]


def _runs(logits: Tensor) -> Iterator[slice]:
    """Runs of rows of some logits, of `RUN_LOGITS` at most."""
    size = max(1, RUN_LOGITS[logits.device.type] // logits.shape[1])
    for first in range(0, len(logits), size):
        yield slice(first, min(first + size, len(logits)))


def _products(
    hidden_NH: Tensor, weight_VH: Tensor, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows and their logits in float32, which the next chunk overwrites."""
    weight_VH = _cast(weight_VH, dtype)
    device = weight_VH.device.type
    size = min(CHUNK_ROWS[device], max(1, CHUNK_LOGITS[device] // len(weight_VH)))
    buffer = weight_VH.new_empty((min(size, len(hidden_NH)), len(weight_VH)))
    for first in range(0, len(hidden_NH), size):
        part = hidden_NH[first : first + size].to(dtype)
        logits = buffer[: len(part)]
        for columns in _columns(weight_VH):
            torch.mm(part, weight_VH[columns].mT, out=logits[:, columns])
        yield slice(first, first + len(part)), logits.float()


def _columns(weight_VH: Tensor) -> Iterator[slice]:
    """Vocabulary entries to multiply at a time: on a CPU, so few that their part of the head stays
    in a core's cache, which is a tenth to a fifth faster.
    """
    size = 2**19 // weight_VH.shape[1] if weight_VH.device.type == "cpu" else len(weight_VH)
    for first in range(0, len(weight_VH), max(1, size)):
        yield slice(first, first + max(1, size))


class _Gradient(NamedTuple):
    """Σ factor · d nll / d hidden and / d weight; None for a frozen weight."""

    hidden_NH: Tensor
    weight_VH: Tensor | None

    @classmethod
    def zeros(cls, hidden_NH: Tensor, weight_VH: Tensor, with_weight: bool) -> "_Gradient":
        weight = torch.zeros_like(weight_VH) if with_weight else None
        return cls(torch.empty_like(hidden_NH), weight)

    def add(
        self,
        rows: slice,
        hidden_NH: Tensor,
        cast_VH: Tensor,
        grad_NV: Tensor,
    ) -> None:
        """Add some rows; `grad_NV` is the gradient of the logits of these rows alone."""
        grad = grad_NV.to(cast_VH.dtype)
        self.hidden_NH[rows] = (grad @ cast_VH).to(self.hidden_NH.dtype)
        if self.weight_VH is not None:
            _add_product(self.weight_VH, grad.mT, hidden_NH[rows].to(cast_VH.dtype))

    def scaled(self, factor: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both times a factor, in place."""
        weight = self.weight_VH
        return self.hidden_NH.mul_(factor), None if weight is None else weight.mul_(factor)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        likely_factor_N: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.settings = dtype, ctx.needs_input_grad[1]
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, likely_factor_N)
        nll_N, ctx.likely = _walk(hidden_NH, weight_VH, targets_N, likely_factor_N, *ctx.settings)
        return nll_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N, likely_factor_N = ctx.saved_tensors
        (factor_N,) = gradients
        # It is scaled in place: a second backward pass recomputes it.
        likely, ctx.likely = ctx.likely, None
        scale = None if likely is None else _common_factor(factor_N, likely_factor_N)
        if scale is not None:
            return *likely.scaled(scale), None, None, None
        _, gradient = _walk(hidden_NH, weight_VH, targets_N, factor_N, *ctx.settings)
        assert gradient is not None
        return *gradient, None, None, None


class _ScoreFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        nll_N: Tensor,
        temperature: float,
        banned: tuple[int, int],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N)
        ctx.settings = dtype, ctx.needs_input_grad[1], temperature, banned
        return nll_N.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N = ctx.saved_tensors
        _, gradient = _walk(hidden_NH, weight_VH, targets_N, gradients[0], *ctx.settings)
        assert gradient is not None
        return *gradient, None, None, None, None, None


def _walk(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    factor_N: Tensor | None,
    dtype: torch.dtype,
    with_weight: bool,
    temperature: float = 1.0,
    banned: tuple[int, int] | None = None,
) -> tuple[Tensor, _Gradient | None]:
    """-log softmax(W h / temperature) at the target, and Σ factor · its gradient, where there are
    factors; the weight's only `with_weight`.
    """
    nll_N = torch.empty(len(hidden_NH), device=hidden_NH.device)
    gradient = None if factor_N is None else _Gradient.zeros(hidden_NH, weight_VH, with_weight)
    cast_VH = _cast(weight_VH, dtype)
    for rows, logits in _products(hidden_NH, weight_VH, dtype):
        if banned is not None:
            mask_meta_tokens(logits, banned)
        for run in _runs(logits):
            part, target_N1 = logits[run], targets_N[rows][run, None]
            if temperature != 1:
                part.div_(temperature)
            probability, log_sum = softmax_and_log_sum(part)
            nll_N[rows][run] = log_sum - part.gather(1, target_N1).squeeze(1)
            if factor_N is not None:
                # d nll / d logits = softmax - one_hot(target)
                factor_N1 = factor_N[rows][run, None] / temperature
                torch.mul(probability, factor_N1, out=part).scatter_add_(1, target_N1, -factor_N1)
        if gradient is not None:
            gradient.add(rows, hidden_NH, cast_VH, logits)
    return nll_N, gradient


def _common_factor(factor_N: Tensor, likely_N: Tensor) -> Tensor | None:
    """c, a scalar, if factor = c · likely up to rounding."""
    common = factor_N.sum() / likely_N.sum()
    differs_N = (factor_N - common * likely_N).abs() > 1e-5 * factor_N.abs()
    return None if differs_N.any() or not common.isfinite() else common


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; where the dtypes differ, the sum is kept in the total's."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
