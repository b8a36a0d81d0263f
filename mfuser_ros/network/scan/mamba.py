"""The selective scan by mamba-ssm's compiled kernel, where it is built.

Its extension module, `selective_scan_cuda`, is called as such: the package around it need not be importable, as it is
not where only the extension was built or where its other dependencies are missing.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mfuser_ros.errors import ConfigurationError


@lru_cache(maxsize=1)
def extension() -> Any:  # the extension is untyped
    """`selective_scan_cuda`, or None where it is not built for this torch."""
    try:
        return import_module("selective_scan_cuda")
    except ImportError:
        return None


def is_there() -> bool:
    """Whether the kernel can be called here."""
    return extension() is not None


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # torch gives this class no public type
        x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    ) -> Tensor:  # fmt: skip
        # theirs has the tokens last, and B and C in groups of channels
        wide = [tensor.float().transpose(1, 2).contiguous() for tensor in (x, delta)]
        thin = [tensor.float().transpose(1, 2).unsqueeze(1).contiguous() for tensor in (B, C)]
        arguments = (*wide, A.float().contiguous(), *thin, D.float().contiguous())
        y, states, *_ = extension().fwd(*arguments, None, None, False)
        ctx.save_for_backward(*arguments, states)
        ctx.dtypes = [tensor.dtype for tensor in (x, delta, A, B, C, D)]
        outputs: Tensor = y.transpose(1, 2)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        x, delta, A, B, C, D, states = ctx.saved_tensors
        gy = grads[0].float().transpose(1, 2).contiguous()
        found = extension().bwd(x, delta, A, B, C, D, None, None, gy, states, None, None, False, False)
        gx, gdelta, gA, gB, gC, gD = found[:6]
        wide = [tensor.transpose(1, 2) for tensor in (gx, gdelta)]
        thin = [tensor.squeeze(1).transpose(1, 2) for tensor in (gB, gC)]
        gradients = (*wide, gA, *thin, gD)
        return tuple(gradient.to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True))


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan in float32; shapes and equations as in `selective_scan`.

    Raises:
        ConfigurationError: the extension is not built here.
    """
    if not is_there():
        raise ConfigurationError(
            "scan backend mamba_ssm: selective_scan_cuda cannot be imported: build mamba-ssm, or choose auto"
        )
    y: Tensor = _Scan.apply(x, delta, A, B, C, D)  # type: ignore[no-untyped-call]  # torch's own lack
    return y
