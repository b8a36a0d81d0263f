"""Steps that take a kernel where `fused.fits` says so, and the same in plain torch elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network import fused


def rotate_(qkv: Tensor, table: Tensor, *, prefix: int, head: int) -> None:
    """Rotate queries and keys by their places, in place; see `tokens.rotate_`."""
    if fused.fits(qkv):
        from mfuser_ros.network.fused import tokens  # noqa: PLC0415  # triton is an optional extra

        tokens.rotate_(qkv, table, prefix=prefix, head=head)
        return
    parts = qkv.view(*qkv.shape[:2], 3, -1, head)[:, prefix:, :2]  # queries and keys, head by head
    sin, cos = (half[:, None, None] for half in table.chunk(2, -1))
    turned = torch.stack([-parts[..., 1::2], parts[..., ::2]], -1).flatten(-2)
    parts.copy_(parts * cos + turned * sin)


def residual_norm(x: Tensor, y: Tensor, gamma: Tensor | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """x + gamma y, (batch, L, D), and its norm; gamma None stands for 1."""
    if fused.fits(x):
        from mfuser_ros.network.fused import tokens  # noqa: PLC0415

        return tokens.residual_norm(x.contiguous(), y, gamma, norm.weight, norm.bias, eps=norm.eps)
    total = x + y if gamma is None else torch.addcmul(x, y, gamma)
    return total, norm(total)


def norm_of_sum(x: Tensor, y: Tensor, norm: nn.Module, position: Tensor | None) -> tuple[Tensor, Tensor]:
    """Norm of x + y, and the same with positions added; without positions the same twice.

    Args:
        x: (batch, L, D).
        y: (batch, L, D).
        norm: a LayerNorm over D.
        position: (L, D), or (batch, L, D).
    """
    if fused.fits(x):
        from mfuser_ros.network.fused import tokens  # noqa: PLC0415

        layer: Any = norm  # as which a ModuleList does not know it
        return tokens.norm_of_sum(x.contiguous(), y.contiguous(), layer.weight, layer.bias, position, eps=layer.eps)
    normed: Tensor = norm(x + y)
    return normed, normed if position is None else normed + position


def swiglu_norm(both: Tensor, norm: nn.LayerNorm | None, hidden: int) -> Tensor:
    """SiLU(gate) times value, then the norm; see `tokens.swiglu_norm`."""
    if fused.fits(both):
        from mfuser_ros.network.fused import tokens  # noqa: PLC0415

        weight, bias, eps = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
        return tokens.swiglu_norm(both, weight, bias, hidden=hidden, eps=eps)
    gate, value = (half[..., :hidden] for half in both.chunk(2, -1))
    product = F.silu(gate) * value
    return F.pad(product if norm is None else norm(product), (0, both.shape[-1] // 2 - hidden))


def add_bias(x: Tensor, bias: Tensor, *, six: bool, shortcut: Tensor | None) -> Tensor:
    """Bias of each channel, then ReLU6, then a shortcut; may work in place; see `maps.add_bias_`."""
    if fused.fits(x):
        from mfuser_ros.network.fused import maps  # noqa: PLC0415

        return maps.add_bias_(x, bias, six=six, shortcut=shortcut)
    x = x + bias[:, None, None]
    x = F.relu6(x) if six else x
    return x if shortcut is None else x + shortcut
