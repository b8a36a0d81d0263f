"""Resizing of pictures as two products with matrices, which a GPU does in no time."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def shrinking(source: int, target: int, device: torch.device) -> Tensor:
    """(target, source) float32 weights that resize one axis: means over areas to shrink it, else linear.

    The same as OpenCV's INTER_AREA and INTER_LINEAR in exact arithmetic.
    """
    scale = source / target
    cells = torch.arange(target, dtype=torch.float64)[:, None]
    pixels = torch.arange(source, dtype=torch.float64)[None]
    if scale > 1:
        covered = torch.minimum((cells + 1) * scale, pixels + 1) - torch.maximum(cells * scale, pixels)
        weights = covered.clamp(min=0) / scale
    else:
        centre = ((cells + 0.5) * scale - 0.5).clamp(0, source - 1)
        weights = (1 - (pixels - centre).abs()).clamp(min=0)
    return weights.to(device, torch.float32)
