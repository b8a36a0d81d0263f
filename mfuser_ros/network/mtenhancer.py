"""MTEnhancer: text queries conditioned on the picture ("context_decoder" in the published code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.config import EnhancerConfig
from mfuser_ros.network.mvfuser import MVFuser


class _Attention(nn.Module):
    """Multi-head attention whose query, key and value maps have no bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, asking), (self.k_proj, asked), (self.v_proj, asked))
        )  # (batch, heads, tokens, width / heads)
        mixed: Tensor = self.dropout(self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return mixed


def _feed_forward(config: EnhancerConfig) -> nn.Sequential:
    width = config.width
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * width, width)
    )


class _EnhancerLayer(nn.Module):
    """Self-attention among the queries, a scan through the picture, feed-forward; `without-hybrid` has no attention."""

    def __init__(self, config: EnhancerConfig) -> None:
        super().__init__()
        width = config.width
        self.hybrid = config.kind != "without-hybrid"
        if self.hybrid:
            self.norm1 = nn.LayerNorm(width)
            self.self_attn = _Attention(width, config.heads, config.dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mvfuser = MVFuser(width, initial_scale=config.initial_scale, dropout=config.dropout)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = _feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, text: Tensor, memory: Tensor) -> Tensor:
        if self.hybrid:
            asking = self.norm1(text)
            text = text + self.self_attn(asking, asking)
        bread = self.norm2(text)
        # the scan runs one way, so the text stands before and after the picture: the second copy has seen it
        offset = self.mvfuser(torch.cat([bread, memory, bread], 1))
        queries = text.shape[1]
        text = text + offset[:, :queries] + offset[:, -queries:]
        enhanced: Tensor = text + self.dropout(self.mlp(self.norm3(text)))
        return enhanced


class _CrossAttentionLayer(nn.Module):
    """The layer of tqdm: self-attention among the queries, attention to the picture, feed-forward.

    Source: spec of MFuser sections 10.1 and 11; Pak et al., tqdm (ECCV 2024).
    """

    def __init__(self, config: EnhancerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = _Attention(width, config.heads, config.dropout)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = _Attention(width, config.heads, config.dropout)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = _feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, text: Tensor, memory: Tensor) -> Tensor:
        asking = self.norm1(text)
        text = text + self.self_attn(asking, asking)
        text = text + self.cross_attn(self.norm2(text), memory)
        enhanced: Tensor = text + self.dropout(self.mlp(self.norm3(text)))
        return enhanced


class MTEnhancer(nn.Module):
    """Refines one embedding for each class with the tokens of the picture.

    Source: spec of MFuser section 4.4; with the layers of other kinds, section 11, table 6.
    """

    def __init__(self, config: EnhancerConfig, text_width: int) -> None:
        super().__init__()
        width = config.width
        self.memory_proj = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        layer = _CrossAttentionLayer if config.kind == "cross-attention" else _EnhancerLayer
        self.layers = nn.ModuleList(layer(config) for _ in range(config.layers))
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, text_width))
        self.gamma = nn.Parameter(torch.empty(text_width))
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal maps and no biases, also inside the MVFuser; gamma is as large, not small, as published."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.gamma)

    def forward(self, text: Tensor, picture: Tensor) -> Tensor:
        """Condition the text on the picture.

        Args:
            text: (batch, K, text_width) one embedding for each class.
            picture: (batch, 1 + N, text_width) the picture in text space: global token, then the grid row by row.

        Returns:
            (batch, K, text_width) enhanced text, not normalised.
        """
        memory = self.memory_proj(picture)
        queries = self.text_proj(text)
        for layer in self.layers:
            queries = layer(queries, memory)
        enhanced: Tensor = text + self.gamma * self.out_proj(queries)
        return enhanced


class Unenhanced(nn.Module):
    """The text as it is (paper, table 6, "w/o enhance")."""

    def forward(self, text: Tensor, picture: Tensor) -> Tensor:  # noqa: ARG002  # the place of MTEnhancer
        """(batch, K, text_width) text and the picture -> the text."""
        return text


def build_enhancer(config: EnhancerConfig, text_width: int) -> MTEnhancer | Unenhanced:
    """The enhancer that the configuration describes; `text_width` is that of the space that text and picture share."""
    return Unenhanced() if config.kind == "none" else MTEnhancer(config, text_width)
