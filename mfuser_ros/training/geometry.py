"""Geometry of training crops, on the device: whole batches, fixed shapes, no word from the device to the host."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.training.draws import log_uniform, uniform
from mfuser_ros.vocabulary import UNKNOWN

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Geometry:
    """How a crop is cut out of a picture."""

    crop: Size = (256, 448)
    scale: tuple[float, float] = (0.55, 2.0)  # log-uniform, on top of the nominal size
    aspect: float = 0.15  # width over height changes by up to this share
    rotation_deg: float = 2.0  # standard deviation

    def __call__(self, picture: Tensor, label: Tensor, size: Tensor, nominal: Size) -> tuple[Tensor, Tensor]:
        """Cut one random crop out of each picture.

        Args:
            picture: (B, 3, H, W) uint8 RGB; sample b fills rows and columns below size[b].
            label: (B, H, W) uint8, 255 outside the picture.
            size: (B, 2) float32 height and width of each picture in this storage.
            nominal: height and width that a scale of 1 brings pictures to.

        Returns:
            (B, 3, h, w) float32 RGB 0..255, grey outside the picture, and (B, h, w) uint8 labels, 255 outside.
        """
        B, _, H, W = picture.shape
        height, width = self.crop
        device = picture.device
        scale = log_uniform(picture, *self.scale).view(B)
        stretch = torch.exp(uniform(picture, -1, 1).view(B) * math.log1p(self.aspect) / 2)
        angle = torch.randn(B, device=device) * math.radians(self.rotation_deg)
        flip = torch.where(torch.rand(B, device=device) < 0.5, -1.0, 1.0)
        target = torch.stack([nominal[0] * scale / stretch, nominal[1] * scale * stretch], 1)  # (B, 2) scaled size
        factor = target / size  # storage pixels -> crop pixels
        # the crop lies inside the scaled picture where that is larger, the picture inside the crop where it is smaller
        half = torch.stack([torch.full_like(scale, height / 2), torch.full_like(scale, width / 2)], 1)
        low, high = torch.minimum(half, target - half), torch.maximum(half, target - half)
        centre = (low + (high - low) * torch.rand(B, 2, device=device)) / factor  # in storage pixels

        rows = torch.arange(height, device=device, dtype=torch.float32) + 0.5 - height / 2
        columns = torch.arange(width, device=device, dtype=torch.float32) + 0.5 - width / 2
        y, x = rows.view(1, -1, 1), columns.view(1, 1, -1) * flip.view(B, 1, 1)
        cos, sin = angle.cos().view(B, 1, 1), angle.sin().view(B, 1, 1)
        source_y = centre[:, 0].view(B, 1, 1) + (cos * y + sin * x) / factor[:, 0].view(B, 1, 1)
        source_x = centre[:, 1].view(B, 1, 1) + (cos * x - sin * y) / factor[:, 1].view(B, 1, 1)
        inside = (source_y >= 0) & (source_y < size[:, 0].view(B, 1, 1))
        inside &= (source_x >= 0) & (source_x < size[:, 1].view(B, 1, 1))
        grid = torch.stack([source_x / W * 2 - 1, source_y / H * 2 - 1], 3)
        cut = F.grid_sample(picture.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        cut = torch.where(inside[:, None], cut, 127.0)
        ids = F.grid_sample(label[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
        return cut, torch.where(inside, ids[:, 0], float(UNKNOWN)).round().to(torch.uint8)
