"""The space that picture and text share: last tokens of both towers -> embeddings as wide as the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.config import Architecture
from mfuser_ros.network.towers import Tower


class JointProjection(nn.Module):
    """Sum of both towers' normalised tokens, mapped to the text's width, for towers that bring no such head.

    Source: spec of MFuser section 2.7 (the EVA case), with norms and a map of its own.
    """

    def __init__(self, vfm_width: int, vlm_width: int, text_width: int) -> None:
        super().__init__()
        self.norm_vfm = nn.LayerNorm(vfm_width)
        self.norm_vlm = nn.LayerNorm(vlm_width)
        self.head_vfm = nn.Linear(vfm_width, text_width, bias=False)
        self.head_vlm = nn.Linear(vlm_width, text_width)

    def forward(self, vfm: Tensor, vlm: Tensor) -> Tensor:
        """(batch, L, width) tokens of each tower -> (batch, L, text_width)."""
        joint: Tensor = self.head_vfm(self.norm_vfm(vfm)) + self.head_vlm(self.norm_vlm(vlm))
        return joint


def build_joint(architecture: Architecture, vfm: Tower, vlm: Tower) -> JointProjection | nn.Linear | None:
    """The weights that join the towers' last tokens, beside those of the VLM's own map to text space.

    A VLM without such a map gets a `JointProjection`. CLIP has a linear map, with which the VFM's tokens are added
    before the VLM's last norm; EVA02 and SigLIP need none: the normed tokens of both are added (spec 2.7).
    """
    if not vlm.text_space:
        return JointProjection(vfm.widths[-1], vlm.widths[-1], architecture.text_width)
    return nn.Linear(vfm.widths[-1], vlm.widths[-1]) if architecture.fusion.vfm_bridge else None


def with_global_token(joint: Tensor, *, class_token: bool) -> Tensor:
    """(batch, 1 + N, width): the class token first; towers without one get the mean of their grid."""
    return joint if class_token else torch.cat([joint.mean(1, keepdim=True), joint], 1)


def score_map(picture: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
    """Cosine similarity (batch, K, h, w) of each place of the picture to each text query.

    Args:
        picture: (batch, 1 + h w, width) global token, then the grid row by row.
        text: (batch, K, width) enhanced text.
        size: h and w of the grid.

    Source: spec of MFuser section 4.5, before the temperature.
    """
    places = F.normalize(picture[:, 1:].float(), dim=-1, eps=1e-12)
    words = F.normalize(text.float(), dim=-1, eps=1e-12)
    similarity: Tensor = words @ places.transpose(1, 2)
    return similarity.view(*similarity.shape[:2], *size)
