"""The one signature of the selective scan and the choice of its backend."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from torch import Tensor

from mfuser_ros.network.scan import blocked, loop, straight

Backend = Literal["auto", "loop", "blocked", "triton", "straight"]


def selective_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    """Run the selective scan over the tokens, from the first to the last.

    For each channel c, with a state s of N numbers that starts at 0:
    ``s_t = exp(delta_t A) s_{t-1} + delta_t x_t B_t`` and ``y_t = <C_t, s_t> + D x_t``.

    Args:
        x: (batch, L, H) input.
        delta: (batch, L, H) step sizes, positive.
        A: (H, N) decay rates, negative.
        B: (batch, L, N) input projections, shared by all channels.
        C: (batch, L, N) output projections, shared by all channels.
        D: (H,) skip gain.
        backend: ``loop`` (the reference), ``blocked`` (plain torch, fast on a CPU), ``triton`` (GPU),
            ``straight`` (a short graph without loops, for export), or ``auto``.

    Returns:
        (batch, L, H) output in float32; the recurrence always runs in float32 (float64 inputs stay float64).

    Source: Gu and Dao, Mamba (2023), algorithm 2; spec of MFuser section 3.2, step 5.
    """
    if backend == "auto":
        backend = "triton" if x.is_cuda and find_spec("triton") else "blocked"
    if backend == "triton":
        from mfuser_ros.network.scan import kernel  # noqa: PLC0415  (triton is an optional extra)

        return kernel.scan(x, delta, A, B, C, D)
    if backend == "straight":
        return straight.scan(x, delta, A, B, C, D)
    return loop.scan(x, delta, A, B, C, D) if backend == "loop" else blocked.scan(x, delta, A, B, C, D)
