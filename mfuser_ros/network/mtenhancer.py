"""MTEnhancer: text queries conditioned on the picture ("context_decoder" in the published code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.config import EnhancerConfig
from mfuser_ros.network.mvfuser import MVFuser


class _SelfAttention(nn.Module):
    """Multi-head self-attention whose query, key and value maps have no bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )  # (batch, heads, K, width / heads)
        mixed: Tensor = self.dropout(self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return mixed


class _EnhancerLayer(nn.Module):
    def __init__(self, config: EnhancerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = _SelfAttention(width, config.heads, config.dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mvfuser = MVFuser(width, initial_scale=config.initial_scale, dropout=config.dropout)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, text: Tensor, memory: Tensor) -> Tensor:
        text = text + self.self_attn(self.norm1(text))
        bread = self.norm2(text)
        # the scan runs one way, so the text stands before and after the picture: the second copy has seen it
        offset = self.mvfuser(torch.cat([bread, memory, bread], 1))
        queries = text.shape[1]
        text = text + offset[:, :queries] + offset[:, -queries:]
        enhanced: Tensor = text + self.dropout(self.mlp(self.norm3(text)))
        return enhanced


class MTEnhancer(nn.Module):
    """Refines one embedding for each class with the tokens of the picture.

    Source: spec of MFuser section 4.4.
    """

    def __init__(self, config: EnhancerConfig, text_width: int) -> None:
        super().__init__()
        width = config.width
        self.memory_proj = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.layers = nn.ModuleList(_EnhancerLayer(config) for _ in range(config.layers))
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, text_width))
        self.gamma = nn.Parameter(torch.empty(text_width))
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal maps, also inside the MVFuser (quirks 10 and 11 of the published construction)."""
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
