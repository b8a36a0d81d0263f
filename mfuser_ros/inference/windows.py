"""Sliding windows: large pictures in crops of the size that the network was trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def starts(size: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis; the last window is shifted back to end at the border.

    Raises:
        ValueError: the axis is shorter than a window.

    Source: spec of MFuser section 5.6.
    """
    if size < crop:
        raise ValueError(f"a side of {size} px is shorter than the window of {crop} px: enlarge the picture")
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [min(index * stride, size - crop) for index in range(count)]


def slide(score: Callable[[Tensor], Tensor], pictures: Tensor, crop: int, stride: int, *, batch: int = 1) -> Tensor:
    """Average the scores of overlapping windows.

    Args:
        score: (n, 3, crop, crop) windows -> (n, K, h, w) class scores at any resolution.
        pictures: (batch, 3, H, W), both sides at least `crop`.
        crop: side of a window, pixels.
        stride: step between windows, pixels.
        batch: windows that `score` gets at once.

    Returns:
        (batch, K, H, W) mean scores.
    """
    height, width = pictures.shape[-2:]
    places = [(y, x) for y in starts(height, crop, stride) for x in starts(width, crop, stride)]
    total: Tensor | None = None
    visits = pictures.new_zeros(1, 1, height, width)
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        windows = torch.cat([pictures[..., y : y + crop, x : x + crop] for y, x in group])
        scores = F.interpolate(score(windows), (crop, crop), mode="bilinear", align_corners=False)
        if total is None:
            total = scores.new_zeros(len(pictures), scores.shape[1], height, width)
        for (y, x), part in zip(group, torch.split(scores, len(pictures)), strict=True):
            total[..., y : y + crop, x : x + crop] += part
            visits[..., y : y + crop, x : x + crop] += 1
    assert total is not None
    return total / visits
