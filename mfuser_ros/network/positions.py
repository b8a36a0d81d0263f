"""Where a token of a grid lies: sine encodings and reference points, computed once for each size."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def sine_encoding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(height * width, channels) sine encoding of a grid, row features before column features.

    Counts cells from 1, normalised to 2 pi, temperature 10000, sine and cosine interleaved.

    Source: Carion et al., DETR (2020); spec of MFuser section 5.3.
    """
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later training step
        half = channels // 2
        divisor = 10000 ** (2 * (torch.arange(half, device=device) // 2) / half)

        def features(cells: int) -> Tensor:
            place = torch.arange(1, cells + 1, dtype=torch.float32, device=device) / (cells + 1e-6) * (2 * math.pi)
            phase = place[:, None] / divisor
            return torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], -1).flatten(1)  # (cells, half)

        rows, columns = features(height), features(width)
        return torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], -1).flatten(0, 1)


@lru_cache(maxsize=64)
def reference_points(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(S, 2) centres of the cells of all levels, x and y in 0..1 of the picture, level after level, row by row."""
    with torch.inference_mode(False):
        points = []
        for height, width in sizes:
            y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
            x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
            points.append(torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1))
        return torch.cat(points)


@lru_cache(maxsize=64)
def level_starts(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(levels,) int32 first token of each level."""
    cells = [0, *(height * width for height, width in sizes[:-1])]
    with torch.inference_mode(False):
        return torch.tensor(cells, device=device).cumsum(0).int()


@lru_cache(maxsize=64)
def level_extents(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(levels, 2) width and height of each level in cells; kept on the device, so that a step can be captured."""
    with torch.inference_mode(False):
        return torch.tensor([(width, height) for height, width in sizes], dtype=torch.float32, device=device)
