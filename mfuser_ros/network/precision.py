"""A network in half precision without autocast: weights are stored as they are used."""

from __future__ import annotations

import torch
from torch import nn

from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.network.tower import Tower


@torch.no_grad()
def lower(network: MFuser, dtype: torch.dtype) -> MFuser:
    """Bring the weights to `dtype`, in place, but for what float32 matters to.

    Step sizes and decay of the scans, the norm behind them, rotary tables and the statistics of the pictures stay.
    Norms and softmax work in float32 inside whatever they are given.

    Args:
        network: for inference.
        dtype: torch.float16 or torch.bfloat16.
    """
    kept: list[tuple[nn.Module, str, torch.Tensor]] = []
    for module in network.modules():
        if isinstance(module, MVFuser):
            kept += [(module, name, getattr(module, name)) for name in ("A_log", "D")]
            kept += [] if module.scale is None else [(module, "scale", module.scale)]
            kept += [(module.dt_proj, name, getattr(module.dt_proj, name)) for name in ("weight", "bias")]
            kept.append((module.norm, "weight", module.norm.weight))
        if isinstance(module, Tower):
            rope = getattr(module.net, "rope", None)
            for owner in (module, *([rope] if isinstance(rope, nn.Module) else [])):
                kept += [(owner, name, buffer) for name, buffer in owner.named_buffers(recurse=False)]
    values = [value.detach().clone() for _, _, value in kept]
    network.to(dtype)
    for (owner, name, _), value in zip(kept, values, strict=True):
        getattr(owner, name).data = value.to(next(network.parameters()).device)
    return network
