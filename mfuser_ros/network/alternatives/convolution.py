"""Convolutions over the maps of both towers in the place of MVFuser (paper, table 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvolutionMixer(nn.Module):
    """1x1, 3x3 and 1x1 convolutions over the maps side by side; class tokens get no offset.

    A quarter of the width between them gives 1.64 M parameters at 1024 channels, as many as an MVFuser.

    Source: spec of MFuser section 11, "Convolution"; the paper says no more than the word.
    """

    def __init__(self, width: int, towers: int) -> None:
        super().__init__()
        middle = max(1, width // 4)
        self.layers = nn.Sequential(
            nn.Conv2d(towers * width, middle, 1),
            nn.GELU(),
            nn.Conv2d(middle, middle, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(middle, towers * width, 1),
        )

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens of each tower, (batch, L, width) each, and their grid -> an offset for each token."""
        places = grid[0] * grid[1]
        maps = torch.cat([tower[:, -places:].transpose(1, 2).reshape(len(tower), -1, *grid) for tower in towers], 1)
        mixed = self.layers(maps).flatten(2).transpose(1, 2)  # (batch, places, towers * width)
        return [
            F.pad(offset, (0, 0, tower.shape[1] - places, 0))
            for tower, offset in zip(towers, mixed.chunk(len(towers), -1), strict=True)
        ]
