"""Random numbers of the augmentation: one for each sample, drawn on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform(like: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, 1, 1) numbers between low and high, one for each sample of `like`."""
    return low + (high - low) * torch.rand(len(like), 1, 1, 1, device=like.device)


def log_uniform(like: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, 1, 1) numbers between low and high whose logarithms are uniform."""
    return uniform(like, math.log(low), math.log(high)).exp()


def sometimes(share: float, changed: Tensor, picture: Tensor) -> Tensor:
    """`changed` for about `share` of the samples, `picture` for the others."""
    return torch.where(uniform(picture, 0, 1) < share, changed, picture)
