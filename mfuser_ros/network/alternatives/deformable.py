"""Deformable attention in both directions in the place of MVFuser (paper, table 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.deformable import DeformableAttention
from mfuser_ros.network.positions import reference_points


class BidirectionalDeformable(nn.Module):
    """Each place of one tower looks at a few learned places of the other; one module serves both directions.

    One module rather than two is what the paper's parameters and FLOPs fit: three maps of the full width, and one for
    offsets and weights of 16 heads with 4 points. Class tokens have no place on the grid and get no offset.
    A tower alone looks at itself.

    Source: spec of MFuser section 11, "bi-deform-attn"; Zhu et al., Deformable DETR (2021).
    """

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.query_proj = nn.Linear(width, width)
        self.attention = DeformableAttention(width, heads, levels=1, points=points)

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens of each tower, (batch, L, width) each, and their grid -> an offset for each token."""
        places = grid[0] * grid[1]
        reference = reference_points((grid,), towers[0].device)
        offsets = []
        for tower, other in zip(towers, reversed(towers), strict=True):
            query, value = self.query_proj(tower[:, -places:]), other[:, -places:]
            seen = self.attention(query, value, reference, (grid,))
            offsets.append(F.pad(seen, (0, 0, tower.shape[1] - places, 0)))
        return offsets
