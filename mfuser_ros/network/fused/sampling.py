"""Deformable attention and the last step of segmentation as single kernels: weighted bilinear reading of maps."""

# Triton kernels are not typed Python:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _attend(
    values, offsets, logits, reference, extents, starts, out, S,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    s = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    picture = tl.program_id(2).to(tl.int64)
    inside = s < S
    c = tl.arange(0, CHANNELS)
    token = picture * S + s
    places: tl.constexpr = LEVELS * POINTS
    own = (token * HEADS + head) * places
    largest = tl.full((TOKENS,), float("-inf"), tl.float32)
    for p in tl.static_range(places):
        largest = tl.maximum(largest, tl.load(logits + own + p, mask=inside, other=0.0).to(tl.float32))
    total = tl.zeros((TOKENS,), tl.float32)
    result = tl.zeros((TOKENS, CHANNELS), tl.float32)
    centre_x = tl.load(reference + s * 2, mask=inside, other=0.0)
    centre_y = tl.load(reference + s * 2 + 1, mask=inside, other=0.0)
    for level in tl.static_range(LEVELS):
        width = tl.load(extents + level * 2)  # float32
        height = tl.load(extents + level * 2 + 1)
        start = tl.load(starts + level)
        for point in tl.static_range(POINTS):
            p = level * POINTS + point
            weight = tl.exp(tl.load(logits + own + p, mask=inside, other=0.0).to(tl.float32) - largest)
            total += weight
            x = centre_x * width - 0.5 + tl.load(offsets + (own + p) * 2, mask=inside, other=0.0).to(tl.float32)
            y = centre_y * height - 0.5 + tl.load(offsets + (own + p) * 2 + 1, mask=inside, other=0.0).to(tl.float32)
            # beyond one cell outside everything is 0, whatever the distance
            x = tl.minimum(tl.maximum(x, -1.0), width)
            y = tl.minimum(tl.maximum(y, -1.0), height)
            left, top = tl.floor(x), tl.floor(y)
            right_share, bottom_share = x - left, y - top
            for corner in tl.static_range(4):
                column = left + (corner % 2)
                row = top + (corner // 2)
                share_x = right_share if corner % 2 == 1 else 1 - right_share
                share_y = bottom_share if corner // 2 == 1 else 1 - bottom_share
                seen = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)
                cell = picture * S + start + (row * width + column).to(tl.int32)
                at = (cell * HEADS + head) * CHANNELS
                value = tl.load(values + at[:, None] + c[None, :], mask=seen[:, None], other=0.0).to(tl.float32)
                result += (weight * share_x * share_y)[:, None] * value
    result = result / total[:, None]
    tl.store(out + ((token * HEADS + head) * CHANNELS)[:, None] + c[None, :], result, mask=inside[:, None])


def attend(
    values: Tensor, offsets: Tensor, logits: Tensor, reference: Tensor, extents: Tensor, starts: Tensor
) -> Tensor:
    """Deformable attention from the values and what the linear maps gave.

    Args:
        values: (batch, S, heads, channels) contiguous; channels a power of 2.
        offsets: (batch, S, heads, levels, points, 2) x and y in cells.
        logits: (batch, S, heads, levels * points), softmax is due.
        reference: (S, 2) float32 place of each token, 0..1.
        extents: (levels, 2) float32 width and height of each level.
        starts: (levels,) int32 first token of each level.

    Returns:
        (batch, S, heads * channels) in the type of the values.
    """
    batch, S, heads, channels = values.shape
    levels, points = offsets.shape[3:5]
    out = values.new_empty(batch, S, heads * channels)
    tokens = 32
    grid = (triton.cdiv(S, tokens), heads, batch)
    _attend[grid](values, offsets, logits, reference, extents, starts, out, S, heads, channels, levels, points, tokens)
    return out


@triton.jit
def _best_class(
    probability, labels, confidence, mask, threshold, h, w, H, W, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    picture = tl.program_id(2).to(tl.int64)
    inside = column < W
    y = tl.maximum((row + 0.5) * (h / H) - 0.5, 0.0)
    x = tl.maximum((column + 0.5) * (w / W) - 0.5, 0.0)
    top = tl.minimum(y.to(tl.int32), h - 1)
    left = tl.minimum(x.to(tl.int32), w - 1)
    down, across = y - top, x - left
    bottom, right = tl.minimum(top + 1, h - 1), tl.minimum(left + 1, w - 1)
    best = tl.full((BLOCK,), -1.0, tl.float32)
    label = tl.zeros((BLOCK,), tl.int32)
    for k in range(K):
        plane = probability + (picture * K + k) * h * w
        upper = tl.load(plane + top * w + left, mask=inside) * (1 - across)
        upper += tl.load(plane + top * w + right, mask=inside) * across
        lower = tl.load(plane + bottom * w + left, mask=inside) * (1 - across)
        lower += tl.load(plane + bottom * w + right, mask=inside) * across
        value = upper * (1 - down) + lower * down
        label = tl.where(value > best, k, label)
        best = tl.maximum(best, value)
    at = (picture * H + row) * W + column
    tl.store(labels + at, label.to(tl.uint8), mask=inside)
    tl.store(mask + at, tl.where(best < tl.load(threshold), 255, label).to(tl.uint8), mask=inside)
    tl.store(confidence + at, tl.minimum(best * 255 + 0.5, 255.0).to(tl.uint8), mask=inside)


def best_class(probability: Tensor, threshold: Tensor, size: Sequence[int], out: Tensor) -> None:
    """Enlarge probabilities (bilinear) and take the best class of each pixel, in one pass.

    Args:
        probability: (batch, K, h, w) float32 contiguous.
        threshold: () float32; a pixel less probable than this is 255 in the mask.
        size: height and width of the result.
        out: (3, batch, height, width) uint8, receives labels, confidence (0..255 for 0..1) and mask.
    """
    batch, K, h, w = probability.shape
    height, width = size
    block = 256
    _best_class[(triton.cdiv(width, block), height, batch)](
        probability, out[0], out[1], out[2], threshold, h, w, height, width, K, block
    )
