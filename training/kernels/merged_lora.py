"""Linear layers with LoRA as a single matrix product each.

peft computes W x and s·B (A x) one after the other: three products and two sweeps over the output.
Here W + s·B A is computed once per step, in the dtype in which the step computes, and every pass of
the step (the thoughts' tokens, the paths, what the backward pass recomputes) uses it. Gradients are
those of A and B; W has none.

Shapes: N rows, I inputs, O outputs, R rank.
"""

from typing import Any, cast

import torch
from peft import LoraModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn import functional as F

from training.kernels.cross_entropy import compute_dtype

_ADAPTER = "default"


class MergedLora:
    """The merged weights of all LoRA layers of a model, whose layers use them from now on.

    `update` must be called before a forward pass in which A or B may have changed.
    """

    def __init__(self, tuner: LoraModel) -> None:
        layers = (module for module in tuner.modules() if isinstance(module, LoraLinear))
        self._layers = [_MergedLayer(layer) for layer in layers]

    def update(self) -> None:
        """Merge again."""
        for layer in self._layers:
            layer.update()


class _MergedLayer:
    def __init__(self, layer: LoraLinear) -> None:
        self._base = layer.get_base_layer()
        self._down_RI, self._up_OR = (
            cast(Tensor, part[_ADAPTER].weight) for part in (layer.lora_A, layer.lora_B)
        )
        self._scale: float = layer.scaling[_ADAPTER]
        self._merged_OI = torch.empty(0)
        layer.forward = self.forward  # type: ignore[method-assign]

    @torch.no_grad()
    def update(self) -> None:
        weight_OI = cast(Tensor, self._base.weight)
        dtype = compute_dtype(weight_OI)
        if (self._merged_OI.dtype, self._merged_OI.shape) != (dtype, weight_OI.shape):
            self._merged_OI = torch.empty_like(weight_OI, dtype=dtype)
        with torch.autocast(weight_OI.device.type, enabled=False):
            self._merged_OI.copy_(
                torch.addmm(weight_OI, self._up_OR, self._down_RI, alpha=self._scale)
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _MergedProduct.apply(  # type: ignore[no-untyped-call]  # torch's
            x.to(self._merged_OI.dtype),
            self._merged_OI,
            self._down_RI,
            self._up_OR,
            self._base.bias,
            self._scale,
        )
        return out


class _MergedProduct(torch.autograd.Function):
    """(W + s·B A) x + bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        merged_OI: Tensor,
        down_RI: Tensor,
        up_OR: Tensor,
        bias_O: Tensor | None,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, merged_OI, down_RI, up_OR)
        ctx.scale = scale
        return F.linear(x, merged_OI, None if bias_O is None else bias_O.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, merged_OI, down_RI, up_OR = ctx.saved_tensors
        (grad,) = gradients
        x_NI, grad_NO = x.flatten(0, -2), grad.flatten(0, -2)
        # With y = s·B (A x): dA = s·(Bᵀ dy) xᵀ and dB = s·dy (A x)ᵀ.
        inner_NR = grad_NO @ up_OR.to(grad.dtype)
        grad_down_RI = (inner_NR.mT @ x_NI).float() * ctx.scale
        grad_up_OR = (grad_NO.mT @ (x_NI @ down_RI.to(x.dtype).mT)).float() * ctx.scale
        grad_x = grad @ merged_OI if ctx.needs_input_grad[0] else None
        return grad_x, None, grad_down_RI, grad_up_OR, None, None
