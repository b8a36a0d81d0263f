"""Self-attention in the place of MVFuser (paper, table 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class JointAttention(nn.Module):
    """One multi-head self-attention over the tokens of all towers, with biases.

    Source: spec of MFuser sections 3.4 and 11, "self-attn (concat.)"; the number of heads is ours.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:  # noqa: ARG002
        """Tokens of each tower, (batch, L, width) each -> an offset for each token."""
        tokens = torch.cat(list(towers), 1)
        mixed: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return list(torch.split(mixed, [tower.shape[1] for tower in towers], 1))
