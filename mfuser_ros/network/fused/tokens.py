"""Elementwise and row-wise work on tokens: convolution with SiLU, gated norm, residual with norm, SwiGLU, rotation.

All kernels read and write the type of their input and work in float32.
"""

# Triton kernels are not typed Python:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # elements of one program of the elementwise kernels


@triton.jit
def _convolve_silu(xz, weight_x, weight_z, x, z, L, TOTAL, INNER: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < TOTAL
    width: tl.constexpr = 2 * INNER
    channel = at % width
    token = at // width
    t = token % L
    of_z = channel >= INNER
    row = tl.where(of_z, channel - INNER, channel) * 3
    total = tl.zeros((BLOCK,), tl.float32)
    for k in tl.static_range(3):
        kernel_x = tl.load(weight_x + row + k, mask=inside & (channel < INNER), other=0.0).to(tl.float32)
        kernel_z = tl.load(weight_z + row + k, mask=inside & of_z, other=0.0).to(tl.float32)
        seen = inside & (t + k >= 1) & (t + k <= L)
        value = tl.load(xz + at + (k - 1) * width, mask=seen, other=0.0).to(tl.float32)
        total += value * (kernel_x + kernel_z)
    total = total * tl.sigmoid(total)
    place = token * INNER + tl.where(of_z, channel - INNER, channel)
    tl.store(x + place, total, mask=inside & (channel < INNER))
    tl.store(z + place, total * tl.sigmoid(total), mask=inside & of_z)


def convolve_silu(xz: Tensor, weight_x: Tensor, weight_z: Tensor) -> tuple[Tensor, Tensor]:
    """Depthwise convolutions of width 3 along the tokens, zeros outside, then SiLU; z gets a second SiLU.

    Args:
        xz: (batch, L, 2 H) contiguous; x in the first half of the channels.
        weight_x: (H, 1, 3).
        weight_z: (H, 1, 3).

    Returns:
        x and z, (batch, L, H) each.

    Source: spec of MFuser section 3.2, steps 2 and 6.
    """
    batch, length, width = xz.shape
    x, z = (xz.new_empty(batch, length, width // 2) for _ in range(2))
    grid = (triton.cdiv(xz.numel(), _BLOCK),)
    _convolve_silu[grid](xz, weight_x, weight_z, x, z, length, xz.numel(), width // 2, _BLOCK)
    return x, z


@triton.jit
def _gated_norm(
    y, z, weight, scale, out, H: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, SCALED: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    inside = h < H
    value = tl.load(y + row * H + h, mask=inside, other=0.0)
    gain = tl.load(weight + h, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        gain *= tl.load(scale).to(tl.float32)
    gate = tl.load(z + row * H + h, mask=inside, other=0.0).to(tl.float32)
    root = tl.sqrt(tl.sum(value * value, 0) / H + EPS)
    tl.store(out + row * H + h, value / root * gain * gate, mask=inside)


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, scale: Tensor | None, *, eps: float) -> Tensor:
    """RMS norm of y times z, times the fuser's small factor, which its last linear map would bring otherwise.

    Args:
        y: (batch, L, H) float32.
        z: (batch, L, H), past its SiLUs; the result has its type.
        weight: (H,) of the norm.
        scale: () the factor; None: it is in the weight already.
        eps: of the norm.
    """
    out = torch.empty_like(z)
    H = y.shape[-1]
    _gated_norm[(y.numel() // H,)](
        y,
        z,
        weight,
        weight if scale is None else scale,
        out,
        H,
        triton.next_power_of_2(H),
        eps,
        SCALED=scale is not None,
    )
    return out


@triton.jit
def _residual_norm(
    x, y, gamma, weight, bias, total, normed,
    D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    value = tl.load(y + row * D + d, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        value *= tl.load(gamma + d, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(x + row * D + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + row * D + d, value, mask=inside)
    mean = tl.sum(value, 0) / D
    centred = tl.where(inside, value - mean, 0.0)
    root = tl.sqrt(tl.sum(centred * centred, 0) / D + EPS)
    gain = tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * D + d, centred / root * gain + shift, mask=inside)


def residual_norm(
    x: Tensor, y: Tensor, gamma: Tensor | None, weight: Tensor, bias: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    """x + gamma y, and its LayerNorm.

    Args:
        x: (batch, L, D) contiguous.
        y: (batch, L, D) contiguous.
        gamma: (D,) or None for 1.
        weight: (D,) of the norm.
        bias: (D,) of the norm.
        eps: of the norm.
    """
    D = x.shape[-1]
    total, normed = torch.empty_like(x), torch.empty_like(x)
    _residual_norm[(x.numel() // D,)](
        x, y, weight if gamma is None else gamma, weight, bias, total, normed,
        D, triton.next_power_of_2(D), eps, SCALED=gamma is not None,
    )  # fmt: skip
    return total, normed


@triton.jit
def _norm_of_sum(
    x, y, weight, bias, position, normed, placed, PLACES,
    D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, PLACED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    value = tl.load(x + row * D + d, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(y + row * D + d, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, 0) / D
    centred = tl.where(inside, value - mean, 0.0)
    root = tl.sqrt(tl.sum(centred * centred, 0) / D + EPS)
    value = centred / root * tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * D + d, value, mask=inside)
    if PLACED:
        value += tl.load(position + (row % PLACES) * D + d, mask=inside, other=0.0).to(tl.float32)
        tl.store(placed + row * D + d, value, mask=inside)


def norm_of_sum(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, position: Tensor | None, *, eps: float
) -> tuple[Tensor, Tensor]:
    """LayerNorm of x + y, and the same with positions added; without positions the same twice.

    Args:
        x: (batch, L, D) contiguous.
        y: (batch, L, D) contiguous.
        weight: (D,) of the norm.
        bias: (D,) of the norm.
        position: (L, D) or (batch, L, D).
        eps: of the norm.
    """
    D = x.shape[-1]
    normed = torch.empty_like(x)
    placed = normed if position is None else torch.empty_like(x)
    places = x if position is None else position.contiguous()
    _norm_of_sum[(x.numel() // D,)](
        x, y, weight, bias, places, normed, placed, places.numel() // D,
        D, triton.next_power_of_2(D), eps, PLACED=position is not None,
    )  # fmt: skip
    return normed, placed


@triton.jit
def _swiglu_norm(
    both, weight, bias, out, ROW, H: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, NORMED: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    inside = h < H
    gate = tl.load(both + row * 2 * ROW + h, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(both + row * 2 * ROW + ROW + h, mask=inside, other=0.0).to(tl.float32)
    value *= gate * tl.sigmoid(gate)
    if NORMED:
        mean = tl.sum(value, 0) / H
        centred = tl.where(inside, value - mean, 0.0)
        root = tl.sqrt(tl.sum(centred * centred, 0) / H + EPS)
        value = centred / root * tl.load(weight + h, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(bias + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * ROW + h, tl.where(inside, value, 0.0), mask=h < ROW)


def swiglu_norm(both: Tensor, weight: Tensor | None, bias: Tensor | None, *, hidden: int, eps: float) -> Tensor:
    """SiLU(gate) times value, then LayerNorm if there is one.

    Args:
        both: (batch, L, 2 R) contiguous, the gate in the first half; columns from `hidden` on are padding.
        weight: (hidden,) of the norm, or None.
        bias: (hidden,) of the norm, or None.
        hidden: channels that count, at most R.
        eps: of the norm.

    Returns:
        (batch, L, R) with zeros in the padding.
    """
    row = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], row)
    _swiglu_norm[(both.numel() // (2 * row),)](
        both, weight, bias, out, row, hidden, triton.next_power_of_2(row), eps, NORMED=weight is not None
    )
    return out


@triton.jit
def _rotate(qkv, table, L, TOTAL, PREFIX: tl.constexpr, D: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # a pair of channels of q or k
    inside = at < TOTAL
    pairs: tl.constexpr = D  # of q and k together: 2 D / 2
    pair = at % pairs
    token = at // pairs
    t = token % L
    inside = inside & (t >= PREFIX)
    place = token * 3 * D + pair * 2
    channel = (pair * 2) % HEAD
    turn = (t - PREFIX) * 2 * HEAD + channel
    sin = tl.load(table + turn, mask=inside, other=0.0).to(tl.float32)
    cos = tl.load(table + turn + HEAD, mask=inside, other=0.0).to(tl.float32)
    first = tl.load(qkv + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(qkv + place + 1, mask=inside, other=0.0).to(tl.float32)
    tl.store(qkv + place, first * cos - second * sin, mask=inside)
    tl.store(qkv + place + 1, second * cos + first * sin, mask=inside)


def rotate_(qkv: Tensor, table: Tensor, *, prefix: int, head: int) -> None:
    """Rotate queries and keys in place by their places on the grid, pairs of neighbouring channels.

    Args:
        qkv: (batch, L, 3 D) contiguous; queries, keys, values, each head by head.
        table: (L - prefix, 2 head) sines, then cosines, each number twice (timm's rotary embedding).
        prefix: tokens at the start that have no place.
        head: channels of a head, even.
    """
    batch, length, width = qkv.shape
    total = batch * length * (width // 3)
    _rotate[(triton.cdiv(total, _BLOCK),)](qkv, table, length, total, prefix, width // 3, head, _BLOCK)
