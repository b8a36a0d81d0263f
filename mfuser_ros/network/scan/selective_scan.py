"""The one signature of the selective scan and the choice of its backend."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from mfuser_ros.network import fused
from mfuser_ros.network.scan import blocked, loop, mamba, straight

Backend = Literal["auto", "loop", "blocked", "triton", "mamba_ssm", "straight"]

_LOGGER = logging.getLogger(__name__)


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
        backend: ``loop`` (the reference), ``blocked`` (plain torch, fast on a CPU), ``triton`` (GPU), ``mamba_ssm``
            (GPU, mamba-ssm's compiled kernel), ``straight`` (a short graph without loops, for export), or ``auto``.

    Returns:
        (batch, L, H) output in float32; the recurrence always runs in float32 (float64 inputs stay float64).

    Source: Gu and Dao, Mamba (2023), algorithm 2; spec of MFuser section 3.2, step 5.
    """
    if backend == "auto":
        backend = chosen(x, A.shape[1])
    if backend == "triton":
        from mfuser_ros.network.scan import kernel  # noqa: PLC0415  (triton is an optional extra)

        return kernel.scan(x, delta, A, B, C, D)
    scan = {"loop": loop.scan, "blocked": blocked.scan, "mamba_ssm": mamba.scan, "straight": straight.scan}[backend]
    return scan(x, delta, A, B, C, D)


def chosen(x: Tensor, state: int) -> Backend:
    """What ``auto`` means for an input of this kind; the first time, the log tells it.

    On a GPU ours in Triton, which was faster than mamba-ssm's kernel at batch 1 and 8 (docs/benchmarks/NOTES.md), then
    mamba-ssm's, then plain torch; inside of `fused.plain` plain torch.
    """
    if not x.is_cuda or x.dtype == torch.float64 or fused.is_plain(scan=True):
        return _told("blocked", x.device.type)
    if find_spec("triton") and state & (state - 1) == 0:
        return _told("triton", x.device.type)
    return _told("mamba_ssm" if mamba.is_there() else "blocked", x.device.type)


@cache
def _told(backend: Backend, device: str) -> Backend:
    _LOGGER.info("the selective scan runs as %s on %s", backend, device)
    return backend
