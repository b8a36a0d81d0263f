"""Steps of the network as single Triton kernels, for inference on a GPU; each has its plain torch form elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from threading import local

import torch
from torch import Tensor

_thread = local()


@lru_cache(maxsize=1)
def triton_is_there() -> bool:
    """Whether the kernels can be compiled here."""
    return find_spec("triton") is not None


@contextmanager
def plain(*, but_for_scan: bool = False) -> Iterator[None]:
    """Inside, and in this thread alone, everything runs in its plain torch form.

    Engines serve so while kernels are compiled, and comparisons take it for their reference.

    Args:
        but_for_scan: whether the scans may be compiled ones nevertheless.
    """
    before = vars(_thread).copy()
    _thread.plain, _thread.scan = True, but_for_scan
    try:
        yield
    finally:
        vars(_thread).clear()
        vars(_thread).update(before)


def is_plain(*, scan: bool = False) -> bool:
    """Whether this thread is inside of `plain`; with `scan`, whether that holds for scans, too."""
    return getattr(_thread, "plain", False) and not (scan and _thread.scan)


def fits(x: Tensor, side: int = 1) -> bool:
    """Whether the kernels may stand in for torch here: on a GPU, without gradients, with triton installed.

    Args:
        x: what the kernel reads.
        side: of the blocks it works on, as the architecture has it; kernels want a power of 2.
    """
    usable = x.is_cuda and x.dtype != torch.float64 and side & (side - 1) == 0
    return usable and not torch.is_grad_enabled() and not is_plain() and triton_is_there()
