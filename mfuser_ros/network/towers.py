"""The vision towers: transformers block by block, and which network has which layout (`TowerConfig.layout`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.config import TowerConfig
from mfuser_ros.network.mobilenet import MobileNetV2Tower
from mfuser_ros.network.pooling import AttentionPooling
from mfuser_ros.network.tower import Tower

import timm  # isort: skip  # imports torchvision, hence after `tower` has mended that


class _TransformerTower(Tower):
    """A plain vision transformer with learned positions: the state is (B, 1 + h*w, D), or (B, h*w, D) for SigLIP."""

    class_token = True
    families: Any = (timm.models.VisionTransformer, timm.models.Eva)  # timm is untyped

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if not isinstance(self.net, self.families):
            raise ConfigurationError(
                f"{config.model}: is no plain vision transformer, layout {config.layout} needs one: choose a vit_*"
            )
        depth = len(self.net.blocks)
        stages = config.stages or depth
        if stages > depth:
            raise ConfigurationError(
                f"{config.model}: has {depth} blocks, too few for {stages} stages: set stages lower"
            )
        self._firsts = [stage * depth // stages for stage in range(stages + 1)]  # block that a stage begins with
        self.widths = (self.net.embed_dim,) * stages
        if self.net.num_prefix_tokens != int(self.class_token):
            raise ConfigurationError(
                f"{config.model}: has {self.net.num_prefix_tokens} prefix tokens, layout {config.layout} needs "
                f"{int(self.class_token)} (a class token or none): choose a model without registers"
            )

    def embed(self, picture: Tensor) -> Tensor:
        patches = self.net.patch_embed(self.normalise(picture))  # (B, h*w, D)
        class_token = self.net.cls_token.expand(len(patches), -1, -1)
        tokens: Tensor = torch.cat([class_token, patches], dim=1) + self.net.pos_embed
        return tokens

    def stage(self, index: int, state: Tensor) -> Tensor:
        for block in range(self._firsts[index], self._firsts[index + 1]):
            state = self.block(block, state)
        return state

    def block(self, index: int, state: Tensor) -> Tensor:
        """Run one block on the state."""
        tokens: Tensor = self.net.blocks[index](state)
        return tokens

    def tokens(self, state: Tensor) -> Tensor:
        return state

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002  # the tokens are the state
        return tokens

    def grid(self, state: Tensor, picture_size: tuple[int, int] | None = None) -> Tensor:
        height, width = self.net.patch_embed.grid_size if picture_size is None else self.grid_size(*picture_size)
        return state[:, int(self.class_token) :].transpose(1, 2).reshape(len(state), -1, height, width)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of whole patches in a picture of this size in pixels; the rest is not seen."""
        rows, columns = self.net.patch_embed.patch_size
        return height // rows, width // columns

    def final_norm(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.net.norm(tokens)
        return normed


class _ResizableTower(_TransformerTower):
    """A transformer whose positions are resized to the picture's own grid."""

    def patches(self, picture: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) RGB 0..255 to (B, h*w, D) patches, and h and w."""
        kernel = self.net.patch_embed.proj  # not patch_embed itself, which knows one size only
        patches: Tensor = kernel(self.normalise(picture))
        return patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3])

    def grid_positions(self) -> Tensor:
        """The stored positions without the class token's, as a (1, D, h, w) map of the configured grid."""
        rows, columns = self.net.patch_embed.grid_size
        stored: Tensor = self.net.pos_embed[:, 1:].transpose(1, 2)
        return stored.reshape(1, -1, rows, columns)


class DinoV2Tower(_ResizableTower):
    """DINOv2 without registers, block by block (timm's `vit_*_patch14_dinov2`).

    Any vision transformer of timm with a class token, a position for it and no norm before the blocks runs the same
    way, such as those trained on ImageNet or by MAE.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        rows, columns = self.net.patch_embed.grid_size
        if self.net.pos_embed is None or self.net.pos_embed.shape[1] != 1 + rows * columns:
            raise ConfigurationError(
                f"{config.model}: has no position of its own for the class token, layout dinov2 needs it: "
                "choose another model"
            )
        if not isinstance(self.net.norm_pre, nn.Identity):
            raise ConfigurationError(
                f"{config.model}: has a norm before its blocks, layout dinov2 none: choose layout clip"
            )
        self.net.reset_classifier(0)  # of networks that were trained with one; nothing here reads it

    def embed(self, picture: Tensor) -> Tensor:
        patches, (height, width) = self.patches(picture)
        positions = self.grid_positions()
        rows, columns = positions.shape[2:]
        if (height, width) != (rows, columns):
            # the factor, not the size, sets where the published code samples: a tenth of a cell more than it needs
            factors = [(height + 0.1) / rows, (width + 0.1) / columns]
            positions = F.interpolate(positions.float(), scale_factor=factors, mode="bicubic").to(patches.dtype)
        class_token = (self.net.cls_token + self.net.pos_embed[:, :1]).expand(len(patches), -1, -1)
        return torch.cat([class_token, patches + positions.flatten(2).transpose(1, 2)], dim=1)


class Eva02Tower(_TransformerTower):
    """EVA02-CLIP, block by block; every block rotates queries and keys of the patches by the same table."""

    text_space = True

    def block(self, index: int, state: Tensor) -> Tensor:
        tokens: Tensor = self.net.blocks[index](state, rope=self.net.rope.get_embed())
        return tokens

    def to_text_space(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.net.head(tokens)
        return embeddings


class BeitTower(_TransformerTower):
    """BEiT and BEiT2, block by block: what a token knows of places is a bias of each block on its attention."""

    families = (timm.models.Beit,)

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if self.net.pos_embed is not None or self.net.rel_pos_bias is not None:
            raise ConfigurationError(
                f"{config.model}: has positions of its own or biases that blocks share, layout beit neither: "
                "choose another model"
            )
        self.net.reset_classifier(0)

    def embed(self, picture: Tensor) -> Tensor:
        patches = self.net.patch_embed(self.normalise(picture))
        return torch.cat([self.net.cls_token.expand(len(patches), -1, -1), patches], dim=1)

    def final_norm(self, tokens: Tensor) -> Tensor:
        # timm has the last norm under one of two names, and the identity under the other
        normed: Tensor = self.net.fc_norm(self.net.norm(tokens))
        return normed


class ClipTower(_ResizableTower):
    """OpenAI's CLIP, block by block (timm's `vit_*_clip_quickgelu_*`)."""

    text_space = True

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        self.net.head = nn.Linear(self.net.embed_dim, self.net.num_classes, bias=False)  # timm's has a bias, CLIP none

    def embed(self, picture: Tensor) -> Tensor:
        patches, size = self.patches(picture)
        positions = self.grid_positions()
        if size != positions.shape[2:]:
            positions = F.interpolate(positions.float(), size, mode="bilinear").to(patches.dtype)
        # the published code adds the class embedding twice, and the weights were trained so
        class_token = (2 * self.net.cls_token + self.net.pos_embed[:, :1]).expand(len(patches), -1, -1)
        tokens = torch.cat([class_token, patches + positions.flatten(2).transpose(1, 2)], dim=1)
        normed: Tensor = self.net.norm_pre(tokens)
        return normed

    def to_text_space(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.net.head(tokens)
        return embeddings


class SiglipTower(_TransformerTower):
    """SigLIP, block by block (timm's `vit_*_siglip_*`): no class token; attention pools the grid.

    timm's pooling head makes the global token alone; ours with the same weights makes the grid's embeddings, too.
    """

    class_token = False
    text_space = True

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        block = self.net.blocks[0]
        self.net.attn_pool = None
        self.pool = AttentionPooling(self.net.embed_dim, block.attn.num_heads, block.mlp.fc1.out_features)

    def embed(self, picture: Tensor) -> Tensor:
        tokens: Tensor = self.net.patch_embed(self.normalise(picture)) + self.net.pos_embed
        return tokens

    def to_text_space(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.pool(tokens)
        return embeddings


_LAYOUTS: dict[str, type[Tower]] = {
    "dinov2": DinoV2Tower,
    "beit": BeitTower,
    "eva02": Eva02Tower,
    "clip": ClipTower,
    "siglip": SiglipTower,
    "mobilenetv2": MobileNetV2Tower,
}


def build_tower(config: TowerConfig) -> Tower:
    """The tower that `config` describes, with random weights.

    Raises:
        ConfigurationError: timm does not know the model, or cannot build it with these options.
    """
    return _LAYOUTS[config.layout](config)


def check_grids(towers: Sequence[Tower]) -> None:
    """Refuse transformers whose patches do not lie on one grid.

    Raises:
        ConfigurationError: they do not.
    """
    grids = [tower.net.patch_embed.grid_size for tower in towers if isinstance(tower, _TransformerTower)]
    if len(set(grids)) > 1:
        shown = " and ".join(f"{rows}x{columns}" for rows, columns in grids)
        raise ConfigurationError(f"towers with grids of {shown} patches cannot be fused: give both one patch_size")
