"""Multi-scale deformable attention: each token looks at a few learned places on every level."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network import fused
from mfuser_ros.network.positions import level_extents, level_starts

Sizes = tuple[tuple[int, int], ...]  # height and width of each level


class DeformableAttention(nn.Module):
    """Deformable self-attention over several levels of features.

    Source: Zhu et al., Deformable DETR (2021), equation 3; spec of MFuser section 5.4.
    """

    def __init__(self, width: int, heads: int, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampler: Literal["auto", "grid"] = "auto"  # grid: by `grid_sample` on every device, for export
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        """Heads look in eight directions, points one to four cells away; weights start equal."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        offsets = direction[:, None, None] * torch.arange(1, self.points + 1)[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, value: Tensor, reference: Tensor, sizes: Sizes) -> Tensor:
        """Attend.

        Args:
            query: (batch, S, width) tokens of all levels with their positions added.
            value: (batch, S, width) the same tokens without positions.
            reference: (S, 2) place of each token, x and y in 0..1 of the picture.
            sizes: height and width of each level, in the order of the tokens.

        Returns:
            (batch, S, width) attended tokens, without the residual.
        """
        batch, tokens, _ = query.shape
        values = self.value_proj(value).unflatten(-1, (self.heads, -1))  # (batch, S, heads, width / heads)
        if fused.fits(values, values.shape[-1]):
            return self._fused(query, values, reference, sizes)
        offsets = self.sampling_offsets(query).float().view(batch, tokens, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).float().view(batch, tokens, self.heads, -1).softmax(-1)
        scale = level_extents(sizes, query.device)  # (levels, 2)
        # in cells of each level, 0 at the centre of the first cell
        places = reference[None, :, None, None, None] * scale[:, None] - 0.5 + offsets
        sample = _sample_by_grid if query.is_cuda or self.sampler == "grid" else _sample_by_embedding_bag
        sampled = sample(values, places, weights.view(batch, tokens, self.heads, self.levels, self.points), sizes)
        attended: Tensor = self.output_proj(sampled.to(value.dtype))
        return attended

    def _fused(self, query: Tensor, values: Tensor, reference: Tensor, sizes: Sizes) -> Tensor:
        """The same for inference on a GPU: softmax, places and samples in one kernel."""
        from mfuser_ros.network.fused.sampling import attend  # noqa: PLC0415  # triton is an optional extra

        batch, tokens, _ = query.shape
        offsets = self.sampling_offsets(query).view(batch, tokens, self.heads, self.levels, self.points, 2)
        logits = self.attention_weights(query).view(batch, tokens, self.heads, -1)
        extents, starts = level_extents(sizes, query.device), level_starts(sizes, query.device)
        attended: Tensor = self.output_proj(attend(values, offsets, logits, reference, extents, starts))
        return attended


def _sample_by_grid(values: Tensor, places: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """Weighted bilinear samples with `grid_sample`, level by level; see `_sample_by_embedding_bag` for the shapes."""
    batch, tokens, heads = places.shape[:3]
    extents = level_extents(sizes, places.device)
    total = None
    for level, (height, width) in enumerate(sizes):
        start = sum(h * w for h, w in sizes[:level])
        plane = values[:, start : start + height * width].permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
        grid = (places[:, :, :, level] + 0.5) / extents[level] * 2 - 1  # (batch, S, heads, points, 2)
        grid = grid.transpose(1, 2).flatten(0, 1)  # (batch * heads, S, points, 2)
        seen = F.grid_sample(plane.float(), grid, align_corners=False)  # (batch * heads, width / heads, S, points)
        weighted = (seen * weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
        total = weighted if total is None else total + weighted
    assert total is not None
    return total.view(batch, -1, tokens).transpose(1, 2)


def _sample_by_embedding_bag(values: Tensor, places: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """Weighted bilinear samples as one `embedding_bag` over the four corners of every place; zeros outside.

    On a CPU this is 2 to 4 times faster than `grid_sample`, because a corner is one row of memory. A border of zeros
    round each level stands for the outside, so no corner needs a test.

    Args:
        values: (batch, S, heads, channels).
        places: (batch, S, heads, levels, points, 2) x and y in cells of each level.
        weights: (batch, S, heads, levels, points).
        sizes: height and width of each level.

    Returns:
        (batch, S, heads * channels).
    """
    batch, tokens, heads, channels = values.shape
    table, starts = _bordered_table(values, sizes)
    device = values.device
    extents = level_extents(sizes, device)[:, None]  # (levels, 1, 2)
    strides = torch.tensor([width + 2 for _, width in sizes], dtype=torch.int32, device=device)[:, None]
    origins = torch.tensor(starts, dtype=torch.int32, device=device)[:, None]

    # beyond one cell outside everything is 0, whatever the distance
    x = (places[..., 0] + 1).clamp(min=0).minimum(extents[..., 0] + 1)  # (batch, S, heads, levels, points)
    y = (places[..., 1] + 1).clamp(min=0).minimum(extents[..., 1] + 1)
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    bottom = weights * bottom_share
    upper = weights - bottom
    bottom_right, upper_right = bottom * right_share, upper * right_share
    shares = torch.stack([upper - upper_right, upper_right, bottom - bottom_right, bottom_right], -1)

    cell = torch.addcmul(left.int(), top.int(), strides) + origins
    first = torch.arange(batch, dtype=torch.int32, device=device) * (table.shape[1] * heads)
    head = torch.arange(heads, dtype=torch.int32, device=device)
    row = cell * heads + (first[:, None] + head)[:, None, :, None, None]
    down = strides * heads
    rows = torch.stack([row, row + heads, row + down, row + (down + heads)], -1)  # (batch, S, heads, levels, points, 4)
    bags = F.embedding_bag(
        rows.flatten(3).flatten(0, 2),
        table.reshape(-1, channels),
        per_sample_weights=shares.flatten(3).flatten(0, 2).to(values.dtype),
        mode="sum",
    )
    return bags.view(batch, tokens, heads * channels)


def _bordered_table(values: Tensor, sizes: Sizes) -> tuple[Tensor, list[int]]:
    """(batch, S, heads, channels) -> (batch, rows, heads, channels) with a border of zeros, and each level's first row.

    Rows at the end stand for corners with weight 0 beyond the last border.
    """
    parts, starts, row = [], [], 0
    for (height, width), level in zip(sizes, torch.split(values, [h * w for h, w in sizes], 1), strict=True):
        plane = level.view(len(values), height, width, *values.shape[2:])
        parts.append(F.pad(plane, (0, 0, 0, 0, 1, 1, 1, 1)).flatten(1, 2))
        starts.append(row)
        row += (height + 2) * (width + 2)
    spare = values.new_zeros(len(values), sizes[-1][1] + 4, *values.shape[2:])
    return torch.cat([*parts, spare], 1), starts
