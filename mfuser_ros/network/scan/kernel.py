"""The selective scan as Triton kernels, forward and backward.

The tokens are cut into chunks that advance side by side, in three launches: each chunk runs from a zero state and
leaves its end state; the end states are chained into the true state at the start of each chunk; each chunk runs once
more from there. The way back does the same from the last token to the first. Twice the arithmetic of one long walk,
but enough programs to fill a large GPU at batch 1. `loop` is the reference.

For training the states of all tokens are stored on the way (batch x L x H x N floats), so that the way back needs no
recomputation; without gradients nothing is stored.
"""

# Triton kernels are not typed Python:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS = 16  # of one program
CHUNK = 64  # tokens of one program


@triton.jit
def _step_size(delta_t, bias, RAW: tl.constexpr):
    """The step size itself, or what a linear map gave for it, to which the softplus and twice the bias are due."""
    if RAW:
        delta_t += 2 * bias
        delta_t = tl.where(delta_t > 20, delta_t, tl.log(1 + tl.exp(tl.minimum(delta_t, 20.0))))
    return delta_t


@triton.jit
def _local_ends(
    x, delta, A, B, bias, ends, sums, L, T, ROW,
    H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    """End state of each chunk from a zero state, and the sum of its step sizes."""
    picture = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    chunk = tl.program_id(2)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    if RAW:
        a = -tl.exp(a)
    bias_h = tl.load(bias + h, mask=inside, other=0.0)
    state = tl.zeros((BLOCK, N), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    first = chunk * T
    last = tl.minimum(first + T, L)
    token = picture * L + first
    x_t = tl.load(x + token * H + h, mask=inside, other=0.0).to(tl.float32)
    delta_t = tl.load(delta + token * H + h, mask=inside, other=0.0).to(tl.float32)
    b_t = tl.load(B + token * ROW + n).to(tl.float32)
    for t in range(first, last):
        # the next token is on its way while this one is worked on
        following = picture * L + tl.minimum(t + 1, L - 1)
        next_x = tl.load(x + following * H + h, mask=inside, other=0.0).to(tl.float32)
        next_delta = tl.load(delta + following * H + h, mask=inside, other=0.0).to(tl.float32)
        next_b = tl.load(B + following * ROW + n).to(tl.float32)
        delta_t = _step_size(delta_t, bias_h, RAW)
        state = tl.exp(delta_t[:, None] * a) * state + (delta_t * x_t)[:, None] * b_t[None, :]
        total += delta_t
        x_t, delta_t, b_t = next_x, next_delta, next_b
    place = (picture * tl.num_programs(2) + chunk) * H + h
    tl.store(ends + place[:, None] * N + n[None, :], state, mask=inside[:, None])
    tl.store(sums + place, total, mask=inside)


@triton.jit
def _chain(
    A, ends, sums, chunks,
    H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, REVERSE: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    """In place: end state of each chunk from zero -> true state that enters the chunk."""
    picture = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    if RAW:
        a = -tl.exp(a)
    state = tl.zeros((BLOCK, N), tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i if REVERSE else i
        place = (picture * chunks + chunk) * H + h
        at = place[:, None] * N + n[None, :]
        own = tl.load(ends + at, mask=inside[:, None], other=0.0)
        total = tl.load(sums + place, mask=inside, other=0.0)
        tl.store(ends + at, state, mask=inside[:, None])
        state = tl.exp(total[:, None] * a) * state + own


@triton.jit
def _forward(
    x, delta, A, B, C, D, bias, starts, y, states, L, T, ROW,
    H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, KEEP: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    """Outputs of each chunk from the state that enters it; keeps the states of all tokens if asked to."""
    picture = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    chunk = tl.program_id(2)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    if RAW:
        a = -tl.exp(a)
    bias_h = tl.load(bias + h, mask=inside, other=0.0)
    d = tl.load(D + h, mask=inside, other=0.0)
    place = (picture * tl.num_programs(2) + chunk) * H + h
    state = tl.load(starts + place[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    first = chunk * T
    last = tl.minimum(first + T, L)
    token = picture * L + first
    x_t = tl.load(x + token * H + h, mask=inside, other=0.0).to(tl.float32)
    delta_t = tl.load(delta + token * H + h, mask=inside, other=0.0).to(tl.float32)
    b_t = tl.load(B + token * ROW + n).to(tl.float32)
    c_t = tl.load(C + token * ROW + n).to(tl.float32)
    for t in range(first, last):
        following = picture * L + tl.minimum(t + 1, L - 1)
        next_x = tl.load(x + following * H + h, mask=inside, other=0.0).to(tl.float32)
        next_delta = tl.load(delta + following * H + h, mask=inside, other=0.0).to(tl.float32)
        next_b = tl.load(B + following * ROW + n).to(tl.float32)
        next_c = tl.load(C + following * ROW + n).to(tl.float32)
        delta_t = _step_size(delta_t, bias_h, RAW)
        state = tl.exp(delta_t[:, None] * a) * state + (delta_t * x_t)[:, None] * b_t[None, :]
        at = (picture * L + t) * H + h
        if KEEP:
            tl.store(states + at[:, None] * N + n[None, :], state, mask=inside[:, None])
        tl.store(y + at, tl.sum(state * c_t[None, :], 1) + d * x_t, mask=inside)
        x_t, delta_t, b_t, c_t = next_x, next_delta, next_b, next_c


@triton.jit
def _local_heads(
    delta, A, C, gy, ends, sums, L, T,
    H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What each chunk alone sends back to the token before it, and the sum of its step sizes."""
    picture = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    chunk = tl.program_id(2)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    grad_state = tl.zeros((BLOCK, N), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    first = chunk * T
    last = tl.minimum(first + T, L)
    for i in range(last - first):
        token = picture * L + last - 1 - i
        delta_t = tl.load(delta + token * H + h, mask=inside, other=0.0).to(tl.float32)
        gy_t = tl.load(gy + token * H + h, mask=inside, other=0.0)
        c_t = tl.load(C + token * N + n).to(tl.float32)
        grad_state = (grad_state + gy_t[:, None] * c_t[None, :]) * tl.exp(delta_t[:, None] * a)
        total += delta_t
    place = (picture * tl.num_programs(2) + chunk) * H + h
    tl.store(ends + place[:, None] * N + n[None, :], grad_state, mask=inside[:, None])
    tl.store(sums + place, total, mask=inside)


@triton.jit
def _backward(
    x, delta, A, B, C, D, states, gy, heads, gx, gdelta, gA, gB, gC, gD, L, T,
    H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of each chunk from what the tokens behind it send back."""
    picture = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    h = block * BLOCK + tl.arange(0, BLOCK)
    chunk = tl.program_id(2)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    d = tl.load(D + h, mask=inside, other=0.0)
    place = (picture * tl.num_programs(2) + chunk) * H + h
    grad_state = tl.load(heads + place[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    grad_a = tl.zeros((BLOCK, N), tl.float32)
    grad_d = tl.zeros((BLOCK,), tl.float32)
    # gB and gC sum over channels: one slice for each block of channels, added outside
    slices = (block * tl.num_programs(0) + picture) * L
    first = chunk * T
    last = tl.minimum(first + T, L)
    for i in range(last - first):
        t = last - 1 - i
        token = picture * L + t
        x_t = tl.load(x + token * H + h, mask=inside, other=0.0).to(tl.float32)
        delta_t = tl.load(delta + token * H + h, mask=inside, other=0.0).to(tl.float32)
        gy_t = tl.load(gy + token * H + h, mask=inside, other=0.0)
        b_t = tl.load(B + token * N + n).to(tl.float32)
        c_t = tl.load(C + token * N + n).to(tl.float32)
        at = (token * H + h[:, None]) * N + n[None, :]
        state = tl.load(states + at, mask=inside[:, None], other=0.0)
        before = tl.load(states + at - H * N, mask=inside[:, None] & (t > 0), other=0.0)
        grad_state += gy_t[:, None] * c_t[None, :]
        tl.store(gC + (slices + t) * N + n, tl.sum(gy_t[:, None] * state, 0))
        tl.store(gB + (slices + t) * N + n, tl.sum(grad_state * (delta_t * x_t)[:, None], 0))
        through_b = tl.sum(grad_state * b_t[None, :], 1)
        decay = tl.exp(delta_t[:, None] * a)
        through_decay = grad_state * before * decay
        tl.store(gx + token * H + h, through_b * delta_t + gy_t * d, mask=inside)
        tl.store(gdelta + token * H + h, through_b * x_t + tl.sum(through_decay * a, 1), mask=inside)
        grad_a += through_decay * delta_t[:, None]
        grad_d += gy_t * x_t
        grad_state = grad_state * decay
    tl.store(gA + place[:, None] * N + n[None, :], grad_a, mask=inside[:, None])
    tl.store(gD + place, grad_d, mask=inside)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # torch gives this class no public type
        x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    ) -> Tensor:  # fmt: skip
        x, delta, B, C = (tensor.contiguous() for tensor in (x, delta, B, C))
        A, D = A.float().contiguous(), D.float().contiguous()
        keep = any(ctx.needs_input_grad)
        y, states = _run(x, delta, A, B, C, D, keep=keep)
        if keep:
            ctx.save_for_backward(x, delta, A, B, C, D, states)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        x, delta, A, B, C, D, states = ctx.saved_tensors
        batch, length, channels = x.shape
        size = A.shape[1]
        gy = grads[0].float().contiguous()
        blocks, chunks = triton.cdiv(channels, CHANNELS), triton.cdiv(length, CHUNK)
        new = gy.new_empty
        ends, sums = new(batch, chunks, channels, size), new(batch, chunks, channels)
        grid = (batch, blocks, chunks)
        _local_heads[grid](delta, A, C, gy, ends, sums, length, CHUNK, channels, size, CHANNELS, num_warps=1)
        _chain[(batch, blocks)](A, ends, sums, chunks, channels, size, CHANNELS, REVERSE=True, RAW=False, num_warps=1)
        gx, gdelta = torch.empty_like(gy), torch.empty_like(gy)
        gA, gD = new(batch, chunks, channels, size), new(batch, chunks, channels)
        gB, gC = (new(blocks, batch, length, size) for _ in range(2))
        _backward[grid](
            x, delta, A, B, C, D, states, gy, ends, gx, gdelta, gA, gB, gC, gD,
            length, CHUNK, channels, size, CHANNELS, num_warps=1,
        )  # fmt: skip
        return (
            gx.to(x.dtype), gdelta.to(delta.dtype), gA.sum((0, 1)),
            gB.sum(0).to(B.dtype), gC.sum(0).to(C.dtype), gD.sum((0, 1)),
        )  # fmt: skip


def _run(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, bias: Tensor | None = None, keep: bool
) -> tuple[Tensor, Tensor]:
    """Outputs in float32, and the states of all tokens if they are to be kept (else of no token).

    B and C may be columns of one wider tensor. With a bias A holds its logarithm and delta what softplus is due to.
    """
    batch, length, channels = x.shape
    size = A.shape[1]
    chunks = triton.cdiv(length, CHUNK)
    new = A.new_empty
    y = new(batch, length, channels)
    states = new(batch, length, channels, size) if keep else new(0)
    starts, sums = new(batch, chunks, channels, size), new(batch, chunks, channels)
    grid = (batch, triton.cdiv(channels, CHANNELS), chunks)
    raw, row, constants = bias is not None, B.stride(1), (channels, size, CHANNELS)
    shift = D if bias is None else bias  # not read without a bias
    _local_ends[grid](x, delta, A, B, shift, starts, sums, length, CHUNK, row, *constants, RAW=raw, num_warps=1)
    _chain[grid[:2]](A, starts, sums, chunks, *constants, REVERSE=False, RAW=raw, num_warps=1)
    _forward[grid](
        x, delta, A, B, C, D, shift, starts, y, states, length, CHUNK, row, *constants,
        KEEP=keep, RAW=raw, num_warps=1,
    )  # fmt: skip
    return y, states


def scan_raw(x: Tensor, step: Tensor, bias: Tensor, A_log: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The scan of an `MVFuser` without gradients: delta = softplus(step + 2 bias) and A = -exp(A_log), formed inside.

    Args:
        x: (batch, L, H) of any float type.
        step: (batch, L, H) float32.
        bias: (H,) float32.
        A_log: (H, N) float32.
        B: (batch, L, N), may be columns of a wider tensor, of any float type.
        C: (batch, L, N), columns of the same tensor.
        D: (H,) float32.

    Returns:
        (batch, L, H) float32.
    """
    return _run(x, step, A_log, B, C, D, bias=bias, keep=False)[0]


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan in float32; shapes and equations as in `selective_scan`; the state size must be a power of 2.

    x, delta, B and C may be of any float type; they are read as they are and worked on in float32.
    """
    y: Tensor = _Scan.apply(x, delta, A, B, C, D)
    return y
