"""The towers' linear maps in 8-bit floating point, off unless asked for: half the traffic, twice the products a second.

Weights are scaled row by row and tokens one by one, so that the largest number of each becomes the largest of e4m3
(448). With three bits of mantissa a number moves by at most 1/16 of itself, and one that is smaller than 2^-6 of the
scale's unit by at most 2^-10 of it.

Source: Micikevicius et al., FP8 Formats for Deep Learning (2022), table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.fused.blocks import FusedBlock
from mfuser_ros.network.model import MFuser

LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448
_ALIGNMENT = 16  # of both sides of a weight, as the product asks for


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n, k) in e4m3, and the (n, 1) float32 scales that bring them back; a row of zeros stays zeros."""
    rows = rows.float()
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (rows / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


class Float8Linear(nn.Module):
    """A linear map whose weight and input are e4m3; sums in float32, gives what it was given."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        """Take over a layer for which `can_be_float8` holds."""
        super().__init__()
        weight, scale = quantised(layer.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        content, scale = quantised(x.flatten(0, -2))
        if x.is_cuda:
            y: Tensor = torch._scaled_mm(  # torch's only way to such a product
                content, self.weight.t(), scale_a=scale, scale_b=self.scale.t(), bias=self.bias,
                out_dtype=torch.bfloat16,
            )  # fmt: skip
        else:
            bias = None if self.bias is None else self.bias.float()
            y = F.linear(content.float() * scale, self.weight.float() * self.scale, bias)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


def can_be_float8(layer: nn.Module) -> bool:
    """Whether a layer is a linear map with sides that the product takes."""
    return isinstance(layer, nn.Linear) and not (layer.in_features % _ALIGNMENT or layer.out_features % _ALIGNMENT)


@torch.no_grad()
def take_float8(model: MFuser) -> int:
    """Put the linear maps of the towers' fused blocks into e4m3, in place; the number of maps."""
    blocks = [block for tower in model.towers for block in tower.net.modules() if isinstance(block, FusedBlock)]
    replaced = 0
    for block in blocks:
        for name, layer in list(block.named_modules()):
            if isinstance(layer, nn.Linear) and can_be_float8(layer):
                block.set_submodule(name, Float8Linear(layer))
                replaced += 1
    return replaced
