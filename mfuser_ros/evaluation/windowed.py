"""A network's probabilities as its architecture wants pictures: in sliding windows, or whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.evaluation.dataset import Probabilities, network_probabilities
from mfuser_ros.inference.windows import slide
from mfuser_ros.network.config import WindowInput
from mfuser_ros.network.model import MFuser, assemble

Size = tuple[int, int]  # height, width


def probabilities(model: MFuser, device: torch.device, input_size: Size, *, windows: int = 4) -> Probabilities:
    """What `evaluate` asks of a network in training, in float32 at a temperature of 1.

    Args:
        model: in eval mode on `device`.
        device: where it runs.
        input_size: height and width that pictures are stretched to, for networks that see them whole.
        windows: that go through at once, for the others; those see pictures at their own size.
    """
    chosen = model.architecture.input
    if not isinstance(chosen, WindowInput):
        return network_probabilities(model, device, input_size)

    def score(crops: Tensor) -> Tensor:
        return assemble(model.predict(crops))

    def run(pictures: list[np.ndarray], size: Size) -> Tensor:
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float()
            shortest = min(batch.shape[2:])
            if shortest < chosen.crop:
                larger = [round(side * chosen.crop / shortest) for side in batch.shape[2:]]
                batch = F.interpolate(batch, larger, mode="bilinear")
            scores = slide(score, batch, chosen.crop, chosen.stride, batch=windows)
            return F.interpolate(scores / scores.sum(1, keepdim=True).clamp_min(1e-30), size, mode="bilinear")

    return run
