"""SigLIP's pooling head, which brings tokens to the space that they share with the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPooling(nn.Module):
    """Attention and a feed-forward network with a residual; once asked by a learned probe, once by every token.

    Source: spec of MFuser section 2.7 (the SigLIP case); parameter names are those of the published head.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layernorm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        nn.init.trunc_normal_(self.probe, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) tokens without a class token -> (B, 1 + N, width): global embedding, then one for each."""
        queries = torch.cat([self.probe.expand(len(tokens), -1, -1), tokens], 1)
        pooled, _ = self.attention(queries, tokens, tokens, need_weights=False)
        hidden = nn.functional.gelu(self.mlp["fc1"](self.layernorm(pooled)), approximate="tanh")
        mixed: Tensor = pooled + self.mlp["fc2"](hidden)
        return mixed
