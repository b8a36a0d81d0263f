"""Steps of the network as single Triton kernels, for inference on a GPU; each has its plain torch form elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

_plain = False


@lru_cache(maxsize=1)
def triton_is_there() -> bool:
    """Whether the kernels can be compiled here."""
    return find_spec("triton") is not None


@contextmanager
def plain() -> Iterator[None]:
    """Inside, everything runs in its plain torch form: the reference for comparisons on a GPU."""
    global _plain  # noqa: PLW0603  # one switch for the whole network, off but in comparisons
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def fits(x: Tensor) -> bool:
    """Whether the kernels may stand in for torch here: on a GPU, without gradients, with triton installed."""
    return x.is_cuda and x.dtype != torch.float64 and not torch.is_grad_enabled() and not _plain and triton_is_there()
