"""The selective scan as it is written: one token after the other. The reference of the faster backends."""

from __future__ import annotations

import torch
from torch import Tensor


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan; shapes and equations as in `selective_scan`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, delta, A, B, C, D = (tensor.to(dtype) for tensor in (x, delta, A, B, C, D))
    state = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])  # (batch, H, N)
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    return torch.stack(outputs, 1) + D * x
