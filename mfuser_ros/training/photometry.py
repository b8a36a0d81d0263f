"""Light, colour and quality of training pictures, on the device.

Whole batches, fixed shapes, no word from the device to the host: every sample draws its own parameters, and a change
that does not apply to a sample is blended out. So all of it fits into a CUDA graph. Pictures are (B, 3, H, W) RGB,
0..1 between the steps. Shares and ranges: the recipe of the prototype of `small`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.training.draws import Draws

BLUR_REACH = 5  # pixels on each side
DARKEST = 0.07  # mean of a picture, 0..1
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
# table K.1 of ITU-T T.81 (JPEG), luminance; chrominance gets its usual flat part
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)  # fmt: skip


class Photometry(nn.Module):
    """All changes of light, colour and quality in one call; holds the constant matrices on the device."""

    def __init__(self) -> None:
        super().__init__()
        dct = torch.tensor([
            [math.cos((2 * x + 1) * u * math.pi / 16) * (math.sqrt(1 / 8) if u == 0 else 0.5) for x in range(8)]
            for u in range(8)
        ])  # fmt: skip
        tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], dtype=torch.float32)
        for name, matrix in (
            ("yiq", torch.tensor(_YIQ)), ("rgb_of_yiq", torch.tensor(_YIQ).inverse()),
            ("ycbcr", torch.tensor(_YCBCR)), ("rgb_of_ycbcr", torch.tensor(_YCBCR).inverse()),
            ("dct", dct), ("tables", tables),
        ):  # fmt: skip
            self.register_buffer(name, matrix, persistent=False)

    yiq: Tensor
    rgb_of_yiq: Tensor
    ycbcr: Tensor
    rgb_of_ycbcr: Tensor
    dct: Tensor
    tables: Tensor

    @torch.no_grad()
    def forward(self, picture: Tensor, draws: Draws) -> Tensor:
        """(B, 3, H, W) RGB 0..255, H and W multiples of 8 -> the same, changed, whole numbers."""
        picture = picture / 255
        picture = draws.sometimes(0.25, style_mixed(picture, draws), picture)
        picture = self.recoloured(picture, draws)
        picture = draws.sometimes(0.3, unevenly_lit(picture, draws), picture)
        dark = draws.uniform(0, 1) < 0.2
        picture = torch.where(dark, dusk(picture, draws), picture)
        # a dark street under gamma and dusk would leave nothing to see
        picture = picture * (DARKEST / picture.mean((1, 2, 3), keepdim=True).clamp_min(1e-3)).clamp_min(1)
        picture = draws.sometimes(0.12, hazed(picture, draws), picture)
        picture = draws.sometimes(0.04, picture.mean(1, keepdim=True).expand_as(picture), picture).clamp(0, 1)
        picture = draws.sometimes(0.25, at_low_resolution(picture, draws), picture)
        picture = draws.sometimes(0.25, blurred(picture, draws.uniform(0.3, 1.8)), picture)
        strength = draws.log_uniform(0.004, 0.05) * torch.where(dark, 1.4, 1.0)
        picture = draws.sometimes(0.4, noisy(picture, strength, draws), picture).clamp(0, 1)
        picture = draws.sometimes(0.25, self.as_jpeg(picture, draws), picture)
        return (picture * 255).round().clamp(0, 255)

    def recoloured(self, picture: Tensor, draws: Draws) -> Tensor:
        """Change brightness, contrast, saturation, hue, white balance and gamma."""
        level = picture.mean((1, 2, 3), keepdim=True)
        picture = (picture - level) * draws.log_uniform(0.55, 1.5) + level
        picture = picture * draws.log_uniform(0.6, 1.45)
        picture = self.turned(picture, draws.uniform(-0.25, 0.25), draws.uniform(0.3, 1.6)).clamp(0, 1.5)
        balance = torch.cat([draws.log_uniform(0.8, 1.25) for _ in range(3)], 1)
        picture = draws.sometimes(0.5, picture * balance, picture).clamp(1e-4, 1)
        return draws.sometimes(0.6, picture ** draws.uniform(-0.7, 0.8).exp(), picture)

    def turned(self, picture: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
        """Turn the hue by (B, 1, 1, 1) radians and multiply the saturation, in YIQ."""
        hue, saturation = hue.view(-1), saturation.view(-1)
        cos, sin, none = saturation * hue.cos(), saturation * hue.sin(), torch.zeros_like(hue)
        turn = torch.stack([torch.ones_like(hue), none, none, none, cos, -sin, none, sin, cos], 1).view(-1, 3, 3)
        matrix = self.rgb_of_yiq @ turn @ self.yiq  # (B, 3, 3)
        return (matrix @ picture.flatten(2)).view_as(picture)

    def as_jpeg(self, picture: Tensor, draws: Draws) -> Tensor:
        """What JPEG leaves: 8x8 blocks of the cosine transform, rounded; quality 15 to 80, chroma at half size."""
        B, _, H, W = picture.shape
        quality = draws.uniform(15, 80)
        scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor() / 100  # libjpeg's rule
        steps = (self.tables * scale).round().clamp_min(1)  # (B, 3, 8, 8)
        planes = (self.ycbcr @ (picture * 255).flatten(2)).view_as(picture)
        chroma = F.interpolate(F.avg_pool2d(planes[:, 1:], 2), scale_factor=2, mode="nearest")
        planes = torch.cat([planes[:, :1] - 128, chroma], 1)
        blocks = planes.view(B, 3, H // 8, 8, W // 8, 8).transpose(3, 4)  # (B, 3, rows, columns, 8, 8)
        steps = steps[:, :, None, None]
        spectrum = (self.dct @ blocks @ self.dct.t() / steps).round() * steps
        planes = (self.dct.t() @ spectrum @ self.dct).transpose(3, 4).reshape(B, 3, H, W)
        planes = torch.cat([planes[:, :1] + 128, planes[:, 1:]], 1)
        return (self.rgb_of_ycbcr @ planes.flatten(2)).view_as(picture).clamp(0, 255) / 255


def style_mixed(picture: Tensor, draws: Draws) -> Tensor:
    """Move mean and deviation of each channel towards those of another picture of the batch.

    Source: Zhou et al., Domain Generalization with MixStyle, ICLR 2021, here on pixels.
    """
    mean, std = picture.mean((2, 3), keepdim=True), picture.std((2, 3), keepdim=True) + 0.02
    other_mean, other_std = draws.of_another(torch.cat([mean, std], 1)).chunk(2, 1)
    share = draws.uniform(0.2, 0.8)
    new_mean = mean + share * (other_mean - mean)
    new_std = std + share * (other_std - std)
    return ((picture - mean) / std * new_std + new_mean).clamp(0, 1)


def unevenly_lit(picture: Tensor, draws: Draws) -> Tensor:
    """Multiply by a ramp of light in any direction: one side up to 1.5 times, the other down to 0.5 times."""
    H, W = picture.shape[2:]
    y = torch.linspace(-1, 1, H, device=picture.device).view(1, 1, H, 1)
    x = torch.linspace(-1, 1, W, device=picture.device).view(1, 1, 1, W)
    angle = draws.uniform(0, 2 * math.pi)
    return picture * (1 + draws.uniform(0.1, 0.5) * (angle.cos() * x + angle.sin() * y) / math.sqrt(2)).clamp_min(0)


def dusk(picture: Tensor, draws: Draws) -> Tensor:
    """Darken and tint towards blue or the yellow of street lamps; some pictures keep the light of headlamps."""
    H, W = picture.shape[2:]
    tint = torch.cat([draws.uniform(0.75, 1.15), draws.uniform(0.8, 1.05), draws.uniform(0.75, 1.2)], 1)
    night = picture.clamp_min(1e-4) ** draws.uniform(1, 1.5) * draws.uniform(0.18, 0.6) * tint
    y = torch.linspace(0, 1, H, device=picture.device).view(1, 1, H, 1)
    x = torch.linspace(-1, 1, W, device=picture.device).view(1, 1, 1, W)
    beam = torch.exp(-(((x - draws.uniform(-0.3, 0.3)) / 0.6) ** 2) - ((y - draws.uniform(0.7, 1)) / 0.3) ** 2)
    return draws.sometimes(0.3, night * (1 + draws.uniform(0.3, 1.2) * beam), night)


def hazed(picture: Tensor, draws: Draws) -> Tensor:
    """Mix with a grey veil that is thickest in the upper half, where the far things are."""
    H = picture.shape[2]
    y = torch.linspace(0, 1, H, device=picture.device).view(1, 1, H, 1)
    thickness = draws.uniform(0.15, 0.6) * torch.exp(-(((y - draws.uniform(0.2, 0.5)) / 0.5) ** 2))
    return picture * (1 - thickness) + thickness * draws.uniform(0.6, 0.95)


def blurred(picture: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a deviation of `sigma` (B, 1, 1, 1) pixels, edges repeated."""
    reach = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=picture.device)
    kernel = torch.exp(-((reach / sigma) ** 2) / 2)  # (B, 1, 1, taps)
    kernel = (kernel / kernel.sum(3, keepdim=True)).view(-1, 1, len(reach))
    for dim in (2, 3):
        pad = (0, 0, BLUR_REACH, BLUR_REACH) if dim == 2 else (BLUR_REACH, BLUR_REACH, 0, 0)
        padded = F.pad(picture, pad, mode="replicate")
        length = picture.shape[dim]
        picture = torch.zeros_like(picture)
        for tap in range(len(reach)):
            picture = torch.addcmul(picture, padded.narrow(dim, tap, length), kernel[:, :, tap, None, None])
    return picture


def at_low_resolution(picture: Tensor, draws: Draws) -> Tensor:
    """Shrink by 0.3 to 0.8 and enlarge again (bilinear both ways, blurred before)."""
    H, W = picture.shape[2:]
    factor = draws.uniform(0.3, 0.8).view(-1, 1, 1)
    soft = blurred(picture, (0.35 / factor)[..., None])

    def read(source: Tensor, ratio: Tensor) -> Tensor:
        """Pixel centre p of the result lies at p * ratio of the source."""
        y = ((torch.arange(H, device=source.device) + 0.5).view(1, H, 1) * ratio / H * 2 - 1).expand(-1, H, W)
        x = ((torch.arange(W, device=source.device) + 0.5).view(1, 1, W) * ratio / W * 2 - 1).expand(-1, H, W)
        return F.grid_sample(
            source, torch.stack([x, y], 3), mode="bilinear", padding_mode="border", align_corners=False
        )

    return read(read(soft, 1 / factor), factor)  # the small picture lies in the corner of a full-sized one


def noisy(picture: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """Add sensor noise of deviation `strength` (B, 1, 1, 1), partly the same in all channels."""
    _, C, H, W = picture.shape
    return picture + strength * (0.7 * draws.randn(1, H, W) + 0.7 * draws.randn(C, H, W))
