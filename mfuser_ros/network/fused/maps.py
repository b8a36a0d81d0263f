"""Bias, ReLU6 and shortcut of a convolution in one pass over its map."""

# Triton kernels are not typed Python:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # elements of one program


@triton.jit
def _add_bias(x, bias, shortcut, TOTAL, C, AREA, SIX: tl.constexpr, SHORT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < TOTAL
    channel = (at // AREA) % C
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if SIX:
        value = tl.minimum(tl.maximum(value, 0.0), 6.0)
    if SHORT:
        value += tl.load(shortcut + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + at, value, mask=inside)


def add_bias_(x: Tensor, bias: Tensor, *, six: bool, shortcut: Tensor | None) -> Tensor:
    """Add a bias to each channel, in place; then ReLU6 if asked for; then a shortcut if there is one.

    Args:
        x: (B, C, h, w), contiguous or channels last.
        bias: (C,).
        six: whether ReLU6 follows.
        shortcut: of the shape of x, or None.
    """
    lies_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if shortcut is not None:
        layout = torch.channels_last if lies_last else torch.contiguous_format
        shortcut = shortcut.contiguous(memory_format=layout)
    area = 1 if lies_last else x.shape[2] * x.shape[3]
    _add_bias[(triton.cdiv(x.numel(), _BLOCK),)](
        x, bias, x if shortcut is None else shortcut, x.numel(), x.shape[1], area,
        SIX=six, SHORT=shortcut is not None, BLOCK=_BLOCK,
    )  # fmt: skip
    return x
