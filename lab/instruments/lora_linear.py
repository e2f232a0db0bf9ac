"""A linear layer with LoRA as one operation: y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, its gradient written out.

PEFT computes the same as a chain of five operations on three modules. On a CPU the time goes into
memory, not arithmetic: two more matrices of the size of y pass through memory in the forward pass
(the adapter's output, its scaled copy), two more in the backward pass, and each is kept until
then. Here the narrow product x·Aᵀ is scaled instead of the wide one, and the wide one
is added by the matrix product itself.

    forward   u  = s·x·Aᵀ          [T, r]       y  = x·Wᵀ + u·Bᵀ
    backward  du = s·dy·B          [T, r]       dx = dy·W + du·A       dA = duᵀ·x       dB = dyᵀ·u
"""

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import nn
from torch.nn import functional

ADAPTER = "default"  # PEFT's name for the only adapter of a model


class LoraProduct(torch.autograd.Function):
    """Compute the output y [..., out] of a layer with its adapter.

    x [..., in], weight [out, in] and bias [out] (frozen), a [r, in], b [out, r], scale → y [...,
    out].

    All products are computed in the dtype of `weight`. Adapters of a bfloat16 base stay float32, as
    do their gradients: they are rounded for each product anew, as autocast does, so that small
    steps are not lost.
    """

    @staticmethod
    def forward(  # noqa: D102, PLR0917 - autograd calls it, by position
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [T, in]
        # `to` makes no copy where the dtype is the same
        low_a = a.to(weight.dtype)
        low_b = b.to(weight.dtype)
        y = functional.linear(rows, weight, bias)
        u = (rows @ low_a.t()).mul_(scale)
        y.addmm_(u, low_b.t())
        ctx.save_for_backward(rows, u, weight, low_a, low_b)
        ctx.scale = scale
        ctx.shape = x.shape
        ctx.dtype = a.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: D102
        rows, u, weight, a, b = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1])  # [T, out]
        du = (dy @ b).mul_(ctx.scale)  # [T, r]
        dx = None
        if ctx.needs_input_grad[0]:  # not in the first layer: nothing below it is trained
            dx = (dy @ weight).addmm_(du, a).view(ctx.shape)
        da = (du.t() @ rows).to(ctx.dtype)  # [r, in]
        db = (dy.t() @ u).to(ctx.dtype)  # [out, r]
        return dx, None, None, da, db, None


class LoraLinear(PeftLinear):
    """PEFT's layer, names and files; one product in place of the chain where it computes the same.

    Made by `fuse` out of a layer that PEFT has built, so __init__ never runs.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output: [..., in] → [..., out]."""
        switched = self.disable_adapters or self.merged or self.active_adapters != [ADAPTER]
        if switched or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base = self.base_layer
        a = self.lora_A[ADAPTER].weight
        b = self.lora_B[ADAPTER].weight
        return LoraProduct.apply(x, base.weight, base.bias, a, b, self.scaling[ADAPTER])


def fuse(model: nn.Module) -> int:
    """Let PEFT's layers in `model` compute their product as one operation; return their number.

    Left as they are: 4-bit layers and GPT-2's transposed ones, dropout (which comes before A and
    is no product), weights that are trained, and PEFT's variants of LoRA.
    """
    chosen = [m for m in model.modules() if type(m) is PeftLinear and _is_plain(m)]
    for layer in chosen:
        layer.__class__ = LoraLinear
    return len(chosen)


def _is_plain(layer: PeftLinear) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and not layer.base_layer.weight.requires_grad
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
        and layer.lora_B[ADAPTER].bias is None
        and not layer.lora_variant
    )
