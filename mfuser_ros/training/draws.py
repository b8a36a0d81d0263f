"""Random numbers of training: one set for each sample of the batch, drawn on the device.

Where several processes share a batch, each draws the numbers of the whole batch from the same generator and keeps the
rows of its own samples. So a sample meets the same changes however the batch is split, and generators stay in step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mfuser_ros.training import processes


class Draws:
    """Draws for the samples of one batch; the b samples of this process among all of them."""

    def __init__(self, samples: Sequence[int], device: torch.device) -> None:
        """Prepare for the samples of each source, in the order of the batch, counted over all processes.

        Raises:
            ConfigurationError: the processes do not divide a source's samples.
        """
        self.total = sum(samples)
        self.device = device
        self.rows = processes.own_rows(list(samples), device)

    def rand(self, *shape: int) -> Tensor:
        """(b, *shape) uniform numbers in 0..1."""
        return self._own(torch.rand(self.total, *shape, device=self.device))

    def randn(self, *shape: int) -> Tensor:
        """(b, *shape) normal numbers."""
        return self._own(torch.randn(self.total, *shape, device=self.device))

    def uniform(self, low: float, high: float) -> Tensor:
        """(b, 1, 1, 1) numbers between low and high."""
        return low + (high - low) * self.rand(1, 1, 1)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """(b, 1, 1, 1) numbers between low and high whose logarithms are uniform."""
        return self.uniform(math.log(low), math.log(high)).exp()

    def sometimes(self, share: float, changed: Tensor, picture: Tensor) -> Tensor:
        """`changed` for about `share` of the samples, `picture` for the others."""
        return torch.where(self.uniform(0, 1) < share, changed, picture)

    def of_another(self, value: Tensor) -> Tensor:
        """(b, ...) of each sample -> the same of another sample of the batch, perhaps in another process."""
        other = self._own(torch.rand(self.total, device=self.device).argsort())
        if self.rows is None:
            return value[other]
        everybody = value.new_zeros(self.total, *value.shape[1:])
        everybody[self.rows] = value
        return processes.summed(everybody)[other]

    def _own(self, numbers: Tensor) -> Tensor:
        return numbers if self.rows is None else numbers[self.rows]
