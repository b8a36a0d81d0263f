"""Where the towers meet: an MVFuser after a stage of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfuser_ros.network.config import FusionConfig
from mfuser_ros.network.mvfuser import MVFuser


class FusionSite(nn.Module):
    """Offsets for the tokens of both towers from one MVFuser over their concatenation.

    Towers as wide as the fuser enter it as they are (EVA02 and SigLIP as published). CLIP's fusers have a map for the
    VFM's tokens and one for their offsets, whose bias the fuser's small scale does not touch. With a width of its own
    the fuser gets normalised tokens of both; their features have deviations from 1 to 15, which the norm evens out.
    """

    def __init__(self, config: FusionConfig, vfm_width: int, vlm_width: int) -> None:
        super().__init__()
        width = config.width or vlm_width
        if config.width is None and vfm_width != vlm_width and not config.vfm_bridge:
            raise ValueError(f"towers of widths {vfm_width} and {vlm_width} need fusion.width or fusion.vfm_bridge")
        self.reduce_vfm, self.expand_vfm = _bridge(vfm_width, config.width)
        self.reduce_vlm, self.expand_vlm = _bridge(vlm_width, config.width)
        if config.vfm_bridge:
            self.reduce_vfm, self.expand_vfm = nn.Linear(vfm_width, width), nn.Linear(width, vfm_width)
        self.mvfuser = MVFuser(width, state=config.state, initial_scale=config.initial_scale, dropout=config.dropout)

    def forward(self, vfm: Tensor, vlm: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, L, width) tokens of each tower -> the same with the fuser's offsets added.

        Source: spec of MFuser section 2.5; the scan runs over the VFM's tokens first.
        """
        offsets = self.mvfuser(torch.cat([self.reduce_vfm(vfm), self.reduce_vlm(vlm)], 1))
        for_vfm, for_vlm = offsets.split([vfm.shape[1], vlm.shape[1]], 1)
        return vfm + self.expand_vfm(for_vfm), vlm + self.expand_vlm(for_vlm)


def _bridge(tower_width: int, fuser_width: int | None) -> tuple[nn.Module, nn.Module]:
    if fuser_width is None:
        return nn.Identity(), nn.Identity()
    reduce = nn.Sequential(nn.LayerNorm(tower_width), nn.Linear(tower_width, fuser_width))
    return reduce, nn.Linear(fuser_width, tower_width, bias=False)
