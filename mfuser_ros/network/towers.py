"""Vision towers: timm networks that are run stage by stage, so that something can happen between the stages.

A tower embeds a picture, runs stage i on its state, and gives its state as tokens on a grid. For a vision transformer a
stage is a block, or a group of them, and the state is its tokens; for MobileNetV2 a stage is a group of inverted
residuals and the state is its map. Who fuses two towers need not know which.

The timm network is the submodule `net`; its parameter names are timm's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network import torchvision_mend
from mfuser_ros.network.config import TowerConfig
from mfuser_ros.network.pooling import AttentionPooling

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
        self.net: Any = _network(config)  # timm is untyped
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


class _TransformerTower(Tower):
    """A plain vision transformer with learned positions: the state is (B, 1 + h*w, D), or (B, h*w, D) for SigLIP."""

    class_token = True

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if not isinstance(self.net, timm.models.VisionTransformer | timm.models.Eva):
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


class MobileNetV2Tower(Tower):
    """MobileNetV2, group by group, BatchNorm folded into the convolutions: the state is a (B, D, h, w) map.

    Classifier and last 1x1 convolution are left out. The published weights come from TensorFlow: build them with
    ``pad_type="same"``, which pads strided layers at the right and the bottom only; symmetric padding shifts every
    strided layer by a pixel.
    """

    class_token = False

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if config.stages is not None:
            raise ConfigurationError(f"{config.model}: its stages are its groups of blocks: leave stages out")
        self.config = config
        self.widths = tuple(_out_channels(group) for group in self.net.blocks)
        fold_batch_norm(self.net)
        for name in _HEAD:
            delattr(self.net, name)

    def embed(self, picture: Tensor) -> Tensor:
        state: Tensor = self.net.bn1(self.net.conv_stem(self.normalise(picture)))
        return state

    def stage(self, index: int, state: Tensor) -> Tensor:
        result: Tensor = self.net.blocks[index](state)
        return result

    def tokens(self, state: Tensor) -> Tensor:
        return state.flatten(2).transpose(1, 2)

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).reshape(state.shape)

    def grid(self, state: Tensor, picture_size: tuple[int, int] | None = None) -> Tensor:  # noqa: ARG002  # it is one
        return state

    def final_norm(self, tokens: Tensor) -> Tensor:
        return tokens


_LAYOUTS: dict[str, type[Tower]] = {
    "dinov2": DinoV2Tower,
    "eva02": Eva02Tower,
    "clip": ClipTower,
    "siglip": SiglipTower,
    "mobilenetv2": MobileNetV2Tower,
}
_HEAD = ("conv_head", "bn2", "global_pool", "classifier")  # parts of timm's MobileNetV2 that no tower needs


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


def load_mobilenet(tower: MobileNetV2Tower, state_dict: Mapping[str, Tensor]) -> None:
    """Fold a MobileNetV2 with timm's names into a tower.

    Args:
        tower: receives the weights.
        state_dict: weights with BatchNorm. Names may carry the prefix ``backbone.``, as in a segmentation network; its
            other tensors are then left out, as are classifier and last convolution.

    Raises:
        CheckpointError: a tensor is missing, is unknown or has another shape; the text names the first one.
    """
    network = _network(tower.config)
    for name in _HEAD:
        delattr(network, name)
    prefix = "backbone." if any(key.startswith("backbone.") for key in state_dict) else ""
    given = {
        key[len(prefix) :]: value
        for key, value in state_dict.items()
        if key.startswith(prefix) and not key.startswith(tuple(f"{prefix}{name}." for name in _HEAD))
    }
    expected = network.state_dict()
    counters = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")}
    for key in sorted(set(expected) - set(counters) - set(given)):
        raise CheckpointError(f"{prefix}{key}: missing from the MobileNetV2 weights: give a timm state dict")
    for key in sorted(set(given) - set(expected)):
        raise CheckpointError(f"{prefix}{key}: unknown to {tower.config.model}: give weights of that model")
    for key, value in given.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{prefix}{key}: has shape {tuple(value.shape)}, {tower.config.model} needs "
                f"{tuple(expected[key].shape)}: give weights of that model"
            )
    network.load_state_dict(counters | given)
    fold_batch_norm(network)
    tower.net.load_state_dict(network.state_dict())


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> None:
    """Fold each BatchNorm of an EfficientNet-like timm network into the convolution before it, in place.

    The convolution gets a bias; what stays in the place of the norm is its activation.
    With g = w / sqrt(v + eps), w and b the affine weights, m and v the running statistics: kernel * g, bias b - m * g.
    """
    convolution: nn.Conv2d | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            convolution = child
        elif isinstance(child, nn.BatchNorm2d):
            if convolution is None or child.running_mean is None or child.running_var is None:
                raise ConfigurationError(f"{name}: no convolution before this BatchNorm: choose another layout")
            gain = child.weight / torch.sqrt(child.running_var + child.eps)
            convolution.weight.mul_(gain.view(-1, 1, 1, 1))
            convolution.bias = nn.Parameter(child.bias - child.running_mean * gain)
            setattr(module, name, child.act)  # timm's BatchNorm carries its activation
            convolution = None
        else:
            fold_batch_norm(child)


def _network(config: TowerConfig) -> Any:  # timm is untyped
    try:
        return timm.create_model(config.model, pretrained=False, **config.options)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"tower {config.model}: timm cannot build it with {config.options} ({reason}): correct model or options"
        ) from error


def _out_channels(group: nn.Module) -> int:
    return [layer for layer in group.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
