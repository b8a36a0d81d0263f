"""From tapped stages of both towers to the four levels that the pixel decoder reads, finest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.config import Neck, PyramidNeck, ResizedNeck, StridedNeck


class Pyramid(nn.Module):
    """Levels of plain vision transformers, made from one grid size by transposed convolutions and pooling.

    Source: spec of MFuser section 2.6.
    """

    def __init__(self, config: PyramidNeck, widths: Sequence[int]) -> None:
        """Build for the tapped widths of both towers together, one for each stage."""
        super().__init__()
        self.taps = config.taps
        self.channels = tuple(widths[tap] for tap in config.taps)
        fine, half = self.channels[:2]
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(fine, fine, 2, 2), nn.BatchNorm2d(fine), nn.GELU(), nn.ConvTranspose2d(fine, fine, 2, 2)
        )
        self.up2 = nn.Sequential(nn.ConvTranspose2d(half, half, 2, 2))

    def forward(self, taps: Mapping[int, Tensor]) -> list[Tensor]:
        """Stage -> (batch, channels, h, w) of both towers -> four levels at 4, 2, 1 and 1/2 times the patch grid."""
        fine, half, same, coarse = (taps[tap] for tap in self.taps)
        return [self.up4(fine), self.up2(half), same, F.max_pool2d(coarse, 2)]


class Strided(nn.Module):
    """Levels of towers that shrink the picture themselves: taps of one stride are put side by side."""

    def __init__(self, config: StridedNeck, widths: Sequence[int]) -> None:
        """Build for the tapped widths of both towers together, one for each stage."""
        super().__init__()
        self.levels = config.taps
        self.taps = tuple(stage for level in config.taps for stage in level)
        fine, half, same = (sum(widths[stage] for stage in level) for level in config.taps)
        self.channels = (fine, half, same, same)

    def forward(self, taps: Mapping[int, Tensor]) -> list[Tensor]:
        """Stage -> (batch, channels, h, w) of both towers -> four levels; the coarsest is pooled from the third."""
        levels = [torch.cat([taps[stage] for stage in level], 1) for level in self.levels]
        return [*levels, F.max_pool2d(levels[-1], 2)]


class Resized(nn.Module):
    """Levels of plain vision transformers as Rein makes them: maps of one grid size, resized without weights.

    Source: spec of MFuser section 10.2.
    """

    def __init__(self, config: ResizedNeck, widths: Sequence[int]) -> None:
        """Build for the tapped widths of both towers together, one for each stage."""
        super().__init__()
        self.taps = config.taps
        self.channels = tuple(widths[tap] for tap in config.taps)

    def forward(self, taps: Mapping[int, Tensor]) -> list[Tensor]:
        """Stage -> (batch, channels, h, w) of both towers -> four levels at 4, 2, 1 and 1/2 times the patch grid."""
        return [
            taps[tap] if factor == 1 else F.interpolate(taps[tap], scale_factor=factor, mode="bilinear")
            for tap, factor in zip(self.taps, (4, 2, 1, 0.5), strict=True)
        ]


def build_neck(config: Neck, widths: Sequence[int]) -> Pyramid | Resized | Strided:
    """The neck of an architecture; `widths` are those of both towers together, one for each stage.

    Raises:
        ConfigurationError: a stage is tapped that there is not.
    """
    taps = [stage for level in config.taps for stage in level] if isinstance(config, StridedNeck) else config.taps
    if max(taps) >= len(widths):
        raise ConfigurationError(f"neck.taps: {max(taps)}, but there are stages 0 to {len(widths) - 1} only")
    if isinstance(config, ResizedNeck):
        return Resized(config, widths)
    return Pyramid(config, widths) if isinstance(config, PyramidNeck) else Strided(config, widths)
