"""The published change of light and colour, on the device: whole batches, fixed shapes, per-sample numbers.

As published it works on bytes: every step ends in whole numbers, and saturation and hue are changed in OpenCV's HSV of
bytes (hue 0..179), so that a batch on the device gets what the published loader made on the CPU.

Source: spec of MFuser section 6.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfuser_ros.network.config import CLIP_MEAN
from mfuser_ros.training.draws import Draws

NOT_SEEN = -1.0  # marks what lies outside a picture; it gets the colour that normalises to 0


class Distortion(nn.Module):
    """Brightness, contrast, saturation and hue, each for half of the samples."""

    padding: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("padding", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, picture: Tensor, draws: Draws) -> Tensor:
        """(B, 3, H, W) RGB 0..255, negative outside the picture -> the same, changed, CLIP's mean outside."""
        outside = picture < 0
        picture = picture.clamp(0, 255).round()
        picture = draws.sometimes(0.5, scaled(picture, 1, draws.uniform(-32, 32)), picture)
        contrast = torch.where(draws.uniform(0, 1) < 0.5, draws.uniform(0.5, 1.5), 1.0)
        early = draws.uniform(0, 1) < 0.5  # contrast before the colours
        picture = torch.where(early, scaled(picture, contrast, 0), picture)
        picture = draws.sometimes(0.5, saturated(picture, draws.uniform(0.5, 1.5)), picture)
        picture = draws.sometimes(0.5, turned(picture, draws.uniform(-18, 18).floor()), picture)
        picture = torch.where(early, picture, scaled(picture, contrast, 0))
        return torch.where(outside, self.padding, picture)


def scaled(picture: Tensor, gain: Tensor | float, offset: Tensor | float) -> Tensor:
    """Bytes times `gain` plus `offset`, clipped and truncated to bytes."""
    return (picture * gain + offset).clamp(0, 255).floor()


def saturated(picture: Tensor, gain: Tensor) -> Tensor:
    """(B, 3, H, W) RGB bytes with their saturation times `gain` (B, 1, 1, 1)."""
    hue, saturation, value = to_hsv(picture)
    return from_hsv(hue, scaled(saturation, gain, 0), value)


def turned(picture: Tensor, shift: Tensor) -> Tensor:
    """(B, 3, H, W) RGB bytes with their hue moved by `shift` (B, 1, 1, 1) whole steps of 2 degrees."""
    hue, saturation, value = to_hsv(picture)
    return from_hsv((hue + shift) % 180, saturation, value)


def to_hsv(picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 3, H, W) RGB bytes -> hue 0..179, saturation and value 0..255, (B, 1, H, W) whole numbers each (OpenCV's)."""
    red, green, blue = picture.chunk(3, 1)
    value = picture.amax(1, keepdim=True)
    span = value - picture.amin(1, keepdim=True)
    sector = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * span, red - green + 4 * span)
    )
    hue = (30 * sector / span.clamp_min(1) + 0.5).floor()
    saturation = (255 * span / value.clamp_min(1) + 0.5).floor()
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `to_hsv`, truncated to bytes."""
    whole, share = (hue / 30).floor(), hue / 30 % 1
    s = saturation / 255
    low, falling, rising = value * (1 - s), value * (1 - s * share), value * (1 - s * (1 - share))
    sector = whole.long() % 6
    red = torch.stack([value, falling, low, low, rising, value])
    green = torch.stack([rising, value, value, falling, low, low])
    blue = torch.stack([low, low, rising, value, value, falling])
    channels = [choice.gather(0, sector[None])[0] for choice in (red, green, blue)]
    return (torch.cat(channels, 1) + 1e-3).floor()  # as OpenCV truncates, but for errors of float32
