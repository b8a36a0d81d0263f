"""Geometry of training crops, on the device: whole batches, fixed shapes, no word from the device to the host."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.training.draws import Draws
from mfuser_ros.vocabulary import UNKNOWN

Size = tuple[int, int]  # height, width
OUTSIDE = 127.0  # grey where a crop leaves its picture


@dataclass(frozen=True)
class Cuts:
    """Where the crops of B samples lie in their pictures, float32."""

    centre: Tensor  # (B, 2) y and x of the crop's middle, in pixels of the picture
    factor: Tensor  # (B, 2) crop pixels for a pixel of the picture, in height and width
    angle: Tensor  # (B,) radians
    flip: Tensor  # (B,) -1 for a mirrored crop, 1 for others


@dataclass(frozen=True)
class Geometry:
    """How a crop is cut out of a picture."""

    crop: Size = (256, 448)
    scale: tuple[float, float] = (0.55, 2.0)  # log-uniform, on top of the nominal size
    aspect: float = 0.15  # width over height changes by up to this share
    rotation_deg: float = 2.0  # standard deviation

    def __call__(
        self, picture: Tensor, label: Tensor, size: Tensor, nominal: Size | None, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Cut one random crop out of each picture.

        Args:
            picture: (B, 3, H, W) uint8 RGB; sample b fills rows and columns below size[b].
            label: (B, H, W) uint8, 255 outside the picture.
            size: (B, 2) float32 height and width of each picture in this storage.
            nominal: height and width that a scale of 1 brings pictures to; None: their own.
            draws: of these B samples.

        Returns:
            (B, 3, h, w) float32 RGB 0..255, grey outside the picture, and (B, h, w) uint8 labels, 255 outside.
        """
        return sample(picture, label, size, self.draw(size, nominal, draws), self.crop)

    def draw(self, size: Tensor, nominal: Size | None, draws: Draws) -> Cuts:
        """A random crop for each of B pictures of (B, 2) `size`."""
        height, width = self.crop
        scale = draws.log_uniform(*self.scale).view(-1)
        stretch = torch.exp(draws.uniform(-1, 1).view(-1) * math.log1p(self.aspect) / 2)
        angle = draws.randn() * math.radians(self.rotation_deg)
        flip = torch.where(draws.rand() < 0.5, -1.0, 1.0)
        rows, columns = size.unbind(1) if nominal is None else nominal
        target = torch.stack([rows * scale / stretch, columns * scale * stretch], 1)  # (B, 2) scaled size
        factor = target / size  # storage pixels -> crop pixels
        # the crop lies inside the scaled picture where that is larger, the picture inside the crop where it is smaller
        half = torch.stack([torch.full_like(scale, height / 2), torch.full_like(scale, width / 2)], 1)
        low, high = torch.minimum(half, target - half), torch.maximum(half, target - half)
        centre = (low + (high - low) * draws.rand(2)) / factor  # in storage pixels
        return Cuts(centre, factor, angle, flip)


def sample(
    picture: Tensor, label: Tensor, size: Tensor, cuts: Cuts, crop: Size, outside: float = OUTSIDE
) -> tuple[Tensor, Tensor]:
    """Read crops out of pictures: bilinear for the picture, the nearest pixel for the label.

    Args:
        picture: (B, 3, H, W) uint8 RGB; sample b fills rows and columns below size[b].
        label: (B, H, W) uint8.
        size: (B, 2) float32 height and width of each picture in this storage.
        cuts: where the crops lie.
        crop: height and width of the crops.
        outside: value of what lies outside the picture.

    Returns:
        (B, 3, h, w) float32 RGB 0..255, `outside` outside the picture, and (B, h, w) uint8 labels, 255 outside.
    """
    B, _, H, W = picture.shape
    height, width = crop
    device = picture.device
    rows = torch.arange(height, device=device, dtype=torch.float32) + 0.5 - height / 2
    columns = torch.arange(width, device=device, dtype=torch.float32) + 0.5 - width / 2
    y, x = rows.view(1, -1, 1), columns.view(1, 1, -1) * cuts.flip.view(B, 1, 1)
    cos, sin = cuts.angle.cos().view(B, 1, 1), cuts.angle.sin().view(B, 1, 1)
    source_y = cuts.centre[:, 0].view(B, 1, 1) + (cos * y + sin * x) / cuts.factor[:, 0].view(B, 1, 1)
    source_x = cuts.centre[:, 1].view(B, 1, 1) + (cos * x - sin * y) / cuts.factor[:, 1].view(B, 1, 1)
    inside = (source_y >= 0) & (source_y < size[:, 0].view(B, 1, 1))
    inside &= (source_x >= 0) & (source_x < size[:, 1].view(B, 1, 1))
    grid = torch.stack([source_x / W * 2 - 1, source_y / H * 2 - 1], 3)
    cut = F.grid_sample(picture.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    cut = torch.where(inside[:, None], cut, outside)
    ids = F.grid_sample(label[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return cut, torch.where(inside, ids[:, 0], float(UNKNOWN)).round().to(torch.uint8)
