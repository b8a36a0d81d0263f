"""Where the towers meet: an MVFuser, or what stands in its place, after a stage of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.alternatives import ReinMaps, build_mixer, build_mvfuser
from mfuser_ros.network.config import FusionConfig


class FusionSite(nn.Module):
    """Offsets for the tokens of the towers from one mixer over all of them.

    Towers as wide as the fuser enter it as they are (EVA02 and SigLIP as published). CLIP's fusers have a map for the
    VFM's tokens and one for their offsets, whose bias the fuser's small scale does not touch. With a width of its own
    the fuser gets normalised tokens of both; their features have deviations from 1 to 15, which the norm evens out.
    """

    def __init__(self, config: FusionConfig, widths: Mapping[str, int], maps: ReinMaps | None = None) -> None:
        """Build for towers of these names (`vfm`, `vlm`) and widths; `maps` are those that Rein's blocks share."""
        super().__init__()
        self.towers = tuple(widths)
        width = config.width or widths[self.towers[-1]]
        if config.width is None and len(set(widths.values())) > 1 and not config.vfm_bridge:
            shown = " and ".join(map(str, widths.values()))
            raise ConfigurationError(f"towers of widths {shown} need fusion.width or fusion.vfm_bridge")
        for tower, tower_width in widths.items():
            reduce, expand = _bridge(tower_width, config.width)
            if tower == "vfm" and config.vfm_bridge:
                reduce, expand = nn.Linear(tower_width, width), nn.Linear(width, tower_width)
            self.add_module(f"reduce_{tower}", reduce)
            self.add_module(f"expand_{tower}", expand)
        self.bare = all(isinstance(part, nn.Identity) for part in self.children())  # no maps before and after
        self.published = config.kind == "mvfuser"
        if self.published:
            self.mvfuser = build_mvfuser(config, width)
        else:
            self.mixer = build_mixer(config, width, towers=len(widths), maps=maps)

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens of each tower, (batch, L, width) each, and their grid -> the same with the mixer's offsets added.

        Source: spec of MFuser section 2.5; the scan runs over the VFM's tokens first.
        """
        reduced = [self.get_submodule(f"reduce_{name}")(x) for name, x in zip(self.towers, towers, strict=True)]
        if self.published:
            joined, lengths = torch.cat(reduced, 1), [tower.shape[1] for tower in towers]
            if self.bare and self.mvfuser.runs_fused(joined):
                return [part.contiguous() for part in torch.split(self.mvfuser.mixed(joined), lengths, 1)]
            offsets = self.mvfuser(joined).split(lengths, 1)
        else:
            offsets = self.mixer(reduced, grid)
        return [
            tower + self.get_submodule(f"expand_{name}")(offset)
            for name, tower, offset in zip(self.towers, towers, offsets, strict=True)
        ]


def build_fusion(config: FusionConfig, widths: Mapping[str, Sequence[int]]) -> nn.ModuleDict:
    """The sites of all fused stages, named by the stage; Rein has the maps of all of them as `shared` besides.

    Args:
        config: none gives no site.
        widths: of each tower after each stage.

    Raises:
        ConfigurationError: the towers' widths or stages and the configuration do not fit.
    """
    lengths = {tower: len(each) for tower, each in widths.items()}
    if len(set(lengths.values())) > 1:
        shown = " and ".join(f"{tower} {length}" for tower, length in lengths.items())
        raise ConfigurationError(f"the towers have different numbers of stages ({shown}): set the stages of one")
    if config.kind != "none" and max(config.stages, default=0) >= min(lengths.values()):
        raise ConfigurationError(f"fusion.stages: there are stages 0 to {min(lengths.values()) - 1} only")
    sites = nn.ModuleDict()
    if config.kind == "none":
        return sites
    maps = None
    if config.kind == "rein":
        maps = ReinMaps(config.width or next(iter(widths.values()))[config.stages[0]], config.initial_scale)
        sites["shared"] = maps
    for stage in config.stages:
        sites[str(stage)] = FusionSite(config, {tower: each[stage] for tower, each in widths.items()}, maps)
    return sites


def _bridge(tower_width: int, fuser_width: int | None) -> tuple[nn.Module, nn.Module]:
    if fuser_width is None:
        return nn.Identity(), nn.Identity()
    reduce = nn.Sequential(nn.LayerNorm(tower_width), nn.Linear(tower_width, fuser_width))
    return reduce, nn.Linear(fuser_width, tower_width, bias=False)
