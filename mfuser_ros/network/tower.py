"""What vision towers have in common.

A tower is a timm network that is run stage by stage, so that something can happen between the stages: it embeds a
picture, runs stage i on its state, and gives its state as tokens on a grid. For a vision transformer a stage is a
block, or a group of them, and the state is its tokens; for MobileNetV2 a stage is a group of inverted residuals and the
state is its map. Who fuses two towers need not know which.

The timm network is the submodule `net`; its parameter names are timm's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network import torchvision_mend
from mfuser_ros.network.config import TowerConfig

torchvision_mend.mend()

import timm  # noqa: E402  # imports torchvision, hence after the mend


class Tower(nn.Module, ABC):
    """What every layout has in common: the timm network and the statistics of its input.

    Attributes:
        widths: channels after each stage; one entry for each stage.
        class_token: whether `tokens` starts with a class token.
        text_space: whether the network brings its own map to the space that it shares with a text tower.
    """

    widths: tuple[int, ...]
    class_token: bool
    text_space = False
    mean: Tensor
    std: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.net: Any = create_network(config)  # timm is untyped
        # not persistent: the numbers belong to the architecture, not to the weights
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) RGB 0..255 to what the network was trained on, in the type of its weights."""
        weights: Tensor = next(self.net.parameters())
        return ((picture - self.mean) / self.std).to(weights.dtype)

    @abstractmethod
    def embed(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) float RGB 0..255 to the state before stage 0."""

    @abstractmethod
    def stage(self, index: int, state: Tensor) -> Tensor:
        """Run stage `index` (from 0) on the state."""

    @abstractmethod
    def tokens(self, state: Tensor) -> Tensor:
        """The state as (B, L, D) tokens: the class token if there is one, then the grid row by row."""

    @abstractmethod
    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """A state of the form of `state` that has these (B, L, D) tokens: ``tokens(with_tokens(s, t)) == t``."""

    @abstractmethod
    def grid(self, state: Tensor, picture_size: tuple[int, int] | None = None) -> Tensor:
        """The state as a (B, D, h, w) map, without the class token.

        Args:
            state: of any stage.
            picture_size: height and width of the picture in pixels, for a tower whose tokens do not tell; that of the
                configuration if None.
        """

    @abstractmethod
    def final_norm(self, tokens: Tensor) -> Tensor:
        """The network's own last norm on (B, L, D) tokens of the last stage; unchanged where it has none."""

    def to_text_space(self, tokens: Tensor) -> Tensor:
        """(B, L, D) normalised tokens to (B, 1 + h*w, C): global token, then the grid row by row.

        Raises:
            ConfigurationError: the network has no such map (`text_space` is False).
        """
        raise ConfigurationError(f"{type(self).__name__}: has no map to text space for {tuple(tokens.shape)} tokens")


def create_network(config: TowerConfig) -> Any:  # timm is untyped
    """The timm network of a tower, with random weights.

    Raises:
        ConfigurationError: timm does not know the model, or cannot build it with these options.
    """
    try:
        return timm.create_model(config.model, pretrained=False, **config.options)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"tower {config.model}: timm cannot build it with {config.options} ({reason}): correct model or options"
        ) from error
