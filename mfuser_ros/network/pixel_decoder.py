"""Text-conditioned deformable pixel decoder: pyramid and text queries -> multi-scale memory and mask features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.attention import SharedKeys, attend
from mfuser_ros.network.config import HeadConfig
from mfuser_ros.network.deformable import DeformableAttention, Sizes
from mfuser_ros.network.fused.steps import norm_of_sum
from mfuser_ros.network.positions import reference_points, sine_encoding

LEVELS = 3  # that the attention sees, coarsest first; a fourth, finer one only receives


class PixelFeatures(NamedTuple):
    """What the query decoder reads."""

    memory: list[Tensor]  # three maps (batch, width, h, w), coarsest first
    mask_features: Tensor  # (batch, width, H, W) at the finest level


class _ConvNorm(nn.Module):
    """Convolution, then GroupNorm."""

    def __init__(self, channels: int, width: int, groups: int, *, kernel: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=bias)
        self.norm = nn.GroupNorm(groups, width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(x))
        return normed


class _PixelDecoderLayer(nn.Module):
    """Deformable attention over the picture, attention to the text, feed-forward; norms after each."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width = config.width
        self.deformable = DeformableAttention(width, config.heads, LEVELS, config.points)
        self.text_attention = (
            nn.MultiheadAttention(width, config.heads, batch_first=True) if config.text_attention else None
        )
        self.ffn = nn.Sequential(
            nn.Linear(width, config.pixel_hidden), nn.ReLU(), nn.Linear(config.pixel_hidden, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if config.text_attention else 2))

    def forward(
        self, tokens: Tensor, placed: Tensor, position: Tensor, reference: Tensor, sizes: Sizes,
        read: Callable[[nn.MultiheadAttention, Tensor], Tensor], *, last: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Tokens, and the same with positions (if another layer follows), both ways; `read` attends to the text."""
        attended = self.deformable(placed, tokens, reference, sizes)
        if self.text_attention is not None:
            tokens, placed = norm_of_sum(tokens, attended, self.norms[0], position)
            attended = read(self.text_attention, placed)
        tokens, _ = norm_of_sum(tokens, attended, self.norms[-2], None)
        return norm_of_sum(tokens, self.ffn(tokens), self.norms[-1], None if last else position)


class PixelDecoder(nn.Module):
    """Refines the pyramid with deformable attention and the text.

    Source: spec of MFuser section 5.1 (the decoder of tqdm).
    """

    def __init__(self, config: HeadConfig, channels: Sequence[int], text_width: int, classes: int) -> None:
        """Build.

        Args:
            config: widths and depths.
            channels: of pyramid levels 0 (finest) to 3 (coarsest).
            text_width: of the text queries.
            classes: number of text queries.
        """
        super().__init__()
        width, groups = config.width, config.norm_groups
        self.input_convs = nn.ModuleList(_ConvNorm(channels[level], width, groups, bias=True) for level in (3, 2, 1))
        self.level_encoding = nn.Embedding(LEVELS, width)
        self.reads_text = config.text_attention
        if self.reads_text:
            self.text_proj = nn.Linear(text_width, width)
            self.text_pos_embed = nn.Embedding(classes, width)
        self.layers = nn.ModuleList(_PixelDecoderLayer(config) for _ in range(config.pixel_layers))
        self.post_norm = nn.LayerNorm(width)
        self.lateral_conv = _ConvNorm(channels[0], width, groups)
        self.output_conv = _ConvNorm(width, width, groups, kernel=3)
        self.mask_feature = nn.Conv2d(width, width, 1)
        self.shared_keys: SharedKeys | None = None  # for inference: of the text, for all layers

    def forward(self, pyramid: Sequence[Tensor], text: Tensor) -> PixelFeatures:
        """Decode.

        Args:
            pyramid: levels 0 (finest) to 3 (coarsest), each (batch, channels, h, w).
            text: (batch, K, text_width) enhanced text queries.
        """
        maps = [conv(pyramid[3 - index]) for index, conv in enumerate(self.input_convs)]
        sizes = tuple((m.shape[-2], m.shape[-1]) for m in maps)
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # (batch, S, width)
        position = torch.cat([
            sine_encoding(*size, tokens.shape[-1], tokens.device).to(tokens.dtype) + self.level_encoding.weight[index]
            for index, size in enumerate(sizes)
        ])  # fmt: skip
        reference = reference_points(sizes, tokens.device)
        placed, readers = tokens + position, self._readers(text)
        for index, (layer, read) in enumerate(zip(self.layers, readers, strict=True)):
            last = index == len(self.layers) - 1
            tokens, placed = layer(tokens, placed, position, reference, sizes, read, last=last)
        tokens = self.post_norm(tokens)

        memory = [
            part.transpose(1, 2).unflatten(-1, size)
            for part, size in zip(tokens.split([h * w for h, w in sizes], 1), sizes, strict=True)
        ]
        finest = self.lateral_conv(pyramid[0])
        coarse = memory[-1]
        if coarse.is_cuda:  # torch enlarges many channels five times faster if they lie side by side
            coarse = coarse.contiguous(memory_format=torch.channels_last)
        raised = F.interpolate(coarse, finest.shape[-2:], mode="bilinear", align_corners=False)
        merged = F.relu(self.output_conv(finest + raised))
        return PixelFeatures(memory, self.mask_feature(merged))

    def _readers(self, text: Tensor) -> list[Callable[[nn.MultiheadAttention, Tensor], Tensor]]:
        """For each layer, what its attention to the text gives for queries."""
        if not self.reads_text:
            return [partial(_read, text, text)] * len(self.layers)  # no layer asks
        words = self.text_proj(text)
        keys = words + self.text_pos_embed.weight
        if self.shared_keys is None:
            return [partial(_read, keys, words)] * len(self.layers)
        return [partial(_read_projected, *pair) for pair in self.shared_keys(keys, words)]


def _read(key: Tensor, value: Tensor, attention: nn.MultiheadAttention, query: Tensor) -> Tensor:
    attended: Tensor = attention(query, key, value, need_weights=False)[0]
    return attended


def _read_projected(key: Tensor, value: Tensor, attention: nn.MultiheadAttention, query: Tensor) -> Tensor:
    return attend(attention, query, key, value)
