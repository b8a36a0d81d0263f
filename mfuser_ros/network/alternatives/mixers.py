"""The mixers that may stand where MVFuser stands: tokens of the towers in, an offset for each token out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.alternatives.attention import JointAttention
from mfuser_ros.network.alternatives.convolution import ConvolutionMixer
from mfuser_ros.network.alternatives.deformable import BidirectionalDeformable
from mfuser_ros.network.alternatives.tokens import ReinMaps, ReinMixer, TokenCrossAttention
from mfuser_ros.network.config import FusionConfig
from mfuser_ros.network.mvfuser import MVFuser


class Scaled(nn.Module):
    """A mixer whose offsets start small, as those of MVFuser do: dropout, then one learned factor."""

    def __init__(self, mixer: nn.Module, initial_scale: float, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(initial_scale))

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens of each tower and their grid -> an offset for each token."""
        return [self.scale * self.dropout(offset) for offset in self.mixer(towers, grid)]


class JointScan(nn.Module):
    """One MVFuser over the tokens of all towers, the published fusion; it has its own scale and dropout."""

    def __init__(self, mvfuser: MVFuser) -> None:
        super().__init__()
        self.mvfuser = mvfuser

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:  # noqa: ARG002
        """Tokens of each tower, (batch, L, width) each -> an offset for each token."""
        offsets = self.mvfuser(torch.cat(list(towers), 1))
        return list(torch.split(offsets, [tower.shape[1] for tower in towers], 1))


class Separate(nn.Module):
    """A mixer for each tower, which sees nothing of the other."""

    def __init__(self, mixers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(mixers)

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens of each tower and their grid -> an offset for each token."""
        return [mixer([tower], grid)[0] for mixer, tower in zip(self.mixers, towers, strict=True)]


def build_mixer(config: FusionConfig, width: int, *, towers: int = 2, maps: ReinMaps | None = None) -> nn.Module:
    """The mixer of one block.

    Args:
        config: its `kind` decides.
        width: of the tokens that enter it.
        towers: how many towers there are.
        maps: those of Rein, which all blocks share and the network registers; of its own if None.

    Returns:
        A module that is called with a sequence of (batch, L, width) tokens, one for each tower, and with the height
        and width of their grid, and that returns as many offsets; a class token stands before the grid.

    Raises:
        ConfigurationError: attention cannot divide this width into its heads, or `kind` has no mixer.
    """
    if config.kind in ("self-attention", "separate-self-attention", "deformable") and width % config.heads:
        raise ConfigurationError(f"fusion.heads: {config.heads} heads do not divide width {width}: choose a divisor")
    scaled: dict[str, Callable[[], nn.Module]] = {
        "self-attention": lambda: JointAttention(width, config.heads),
        "separate-self-attention": lambda: Separate(JointAttention(width, config.heads) for _ in range(towers)),
        "deformable": lambda: BidirectionalDeformable(width, config.heads, config.points),
        "convolution": lambda: ConvolutionMixer(width, towers),
        "cross-attention": lambda: TokenCrossAttention(width, config.tokens, config.rank),
    }
    if config.kind in scaled:
        return Scaled(scaled[config.kind](), config.initial_scale, config.dropout)
    if config.kind == "rein":  # its scale is shared like its maps, and it has no dropout
        own = ReinMaps(width, config.initial_scale) if maps is None else maps
        mixer = ReinMixer(width, config.tokens, config.rank, own)
        if maps is None:
            mixer.add_module("maps", own)
        return mixer
    if config.kind == "mvfuser":
        return JointScan(build_mvfuser(config, width))
    if config.kind == "separate-mvfuser":
        return Separate(JointScan(build_mvfuser(config, width)) for _ in range(towers))
    raise ConfigurationError(f"fusion.kind: {config.kind} has no mixer: choose another kind")


def build_mvfuser(config: FusionConfig, width: int) -> MVFuser:
    """The published adapter with the state, scale, dropout and scan of the configuration."""
    return MVFuser(
        width, state=config.state, initial_scale=config.initial_scale, dropout=config.dropout, scan=config.scan
    )
