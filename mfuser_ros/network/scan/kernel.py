"""The selective scan as a Triton kernel, forward and backward, for training on a GPU.

One program walks the tokens of one picture for a block of channels; the states are stored on the way, so the way
back needs no recomputation. Trades memory (batch x L x H x N floats) for speed; `loop` is the reference.
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


@triton.jit
def _forward(x, delta, A, B, C, D, y, states, L, H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr):
    picture = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    d = tl.load(D + h, mask=inside, other=0.0)
    state = tl.zeros((BLOCK, N), tl.float32)
    for t in range(L):
        token = picture * L + t
        x_t = tl.load(x + token * H + h, mask=inside, other=0.0)
        delta_t = tl.load(delta + token * H + h, mask=inside, other=0.0)
        b_t = tl.load(B + token * N + n)
        c_t = tl.load(C + token * N + n)
        state = tl.exp(delta_t[:, None] * a) * state + (delta_t * x_t)[:, None] * b_t[None, :]
        tl.store(states + (token * H + h[:, None]) * N + n[None, :], state, mask=inside[:, None])
        tl.store(y + token * H + h, tl.sum(state * c_t[None, :], 1) + d * x_t, mask=inside)


@triton.jit
def _backward(
    x, delta, A, B, C, D, states, gy, gx, gdelta, gA, gB, gC, gD,
    L, H: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    h = block * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, N)
    inside = h < H
    a = tl.load(A + h[:, None] * N + n[None, :], mask=inside[:, None], other=0.0)
    d = tl.load(D + h, mask=inside, other=0.0)
    grad_state = tl.zeros((BLOCK, N), tl.float32)  # what reaches s_t from the tokens after t
    grad_a = tl.zeros((BLOCK, N), tl.float32)
    grad_d = tl.zeros((BLOCK,), tl.float32)
    # gB and gC sum over channels: one slice for each block of channels, added outside
    slices = (block * tl.num_programs(0) + picture) * L
    for i in range(L):
        t = L - 1 - i
        token = picture * L + t
        x_t = tl.load(x + token * H + h, mask=inside, other=0.0)
        delta_t = tl.load(delta + token * H + h, mask=inside, other=0.0)
        gy_t = tl.load(gy + token * H + h, mask=inside, other=0.0)
        b_t = tl.load(B + token * N + n)
        c_t = tl.load(C + token * N + n)
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
    tl.store(gA + (picture * H + h[:, None]) * N + n[None, :], grad_a, mask=inside[:, None])
    tl.store(gD + picture * H + h, grad_d, mask=inside)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # torch gives this class no public type
        x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    ) -> Tensor:  # fmt: skip
        x, delta, A, B, C, D = (tensor.float().contiguous() for tensor in (x, delta, A, B, C, D))
        batch, length, channels = x.shape
        size = A.shape[1]
        y = torch.empty_like(x)
        states = x.new_empty(batch, length, channels, size)
        grid = (batch, triton.cdiv(channels, CHANNELS))
        _forward[grid](x, delta, A, B, C, D, y, states, length, channels, size, CHANNELS, num_warps=2)
        ctx.save_for_backward(x, delta, A, B, C, D, states)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        x, delta, A, B, C, D, states = ctx.saved_tensors
        batch, length, channels = x.shape
        size = A.shape[1]
        gy = grads[0].float().contiguous()
        blocks = triton.cdiv(channels, CHANNELS)
        gx, gdelta = torch.empty_like(x), torch.empty_like(x)
        gA, gD = x.new_empty(batch, channels, size), x.new_empty(batch, channels)
        gB, gC = (x.new_empty(blocks, batch, length, size) for _ in range(2))
        _backward[(batch, blocks)](
            x, delta, A, B, C, D, states, gy, gx, gdelta, gA, gB, gC, gD,
            length, channels, size, CHANNELS, num_warps=2,
        )  # fmt: skip
        return gx, gdelta, gA.sum(0), gB.sum(0), gC.sum(0), gD.sum(0)


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan in float32; shapes and equations as in `selective_scan`; the state size must be a power of 2."""
    y: Tensor = _Scan.apply(x, delta, A, B, C, D)
    return y
