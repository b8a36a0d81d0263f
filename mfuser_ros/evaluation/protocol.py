"""How pictures go through a network in an evaluation: in one pass, or as published in sliding windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.dataset import Probabilities, Size
from mfuser_ros.inference.enlarge import probabilities
from mfuser_ros.inference.segmenter import Segmenter
from mfuser_ros.inference.windows import slide
from mfuser_ros.network.config import Architecture, WindowInput
from mfuser_ros.network.model import assemble

Protocol = Literal["published", "single"]


@dataclass(frozen=True)
class SinglePass:
    """Each whole picture at once, stretched to `size` (height, width)."""

    size: Size

    def settings(self) -> dict[str, Any]:  # JSON
        """What a summary says of it."""
        return {"protocol": "single", "size": list(self.size)}

    def probabilities(self, segmenter: Segmenter) -> Probabilities:
        """The way through a segmenter that was loaded with this input size."""

        def run(pictures: list[np.ndarray], size: Size) -> Tensor:
            return torch.stack([torch.from_numpy(segmenter.probabilities(picture, size)) for picture in pictures])

        return run


@dataclass(frozen=True)
class Published:
    """The published protocol: scale, sliding windows, mean of the windows' scores, enlarged to the label's size.

    The published code applies a softmax to the enlarged scores; here they are divided by their sum at the segmenter's
    temperature. Both leave the best class as it is.

    Attributes:
        limits: long and short side that a picture is scaled to fit.
        windows: their side and step.

    Source: spec of MFuser sections 5.6 and 5.7.
    """

    limits: tuple[int, int]
    windows: WindowInput

    def settings(self) -> dict[str, Any]:  # JSON
        """What a summary says of it."""
        return {
            "protocol": "published",
            "within": list(self.limits),
            "window": self.windows.crop,
            "stride": self.windows.stride,
        }

    def probabilities(self, segmenter: Segmenter) -> Probabilities:
        """The way through a segmenter; raises ConfigurationError where a scaled side is shorter than a window."""
        device = torch.device(segmenter.device)
        crop, stride = self.windows.crop, self.windows.stride
        batch = 8 if device.type == "cuda" else 1

        def score(crops: Tensor) -> Tensor:
            return assemble(segmenter.model.predict(crops)).float()

        def one(picture: np.ndarray, size: Size) -> Tensor:
            height, width = within((picture.shape[0], picture.shape[1]), self.limits)
            if min(height, width) < crop:
                raise ConfigurationError(
                    f"picture of {picture.shape[1]}x{picture.shape[0]}: scaled to {width}x{height} it is smaller than "
                    f"a window of {crop}: raise published_within of the set, or choose --protocol single"
                )
            scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
            tensor = torch.from_numpy(scaled).to(device).permute(2, 0, 1)[None].float()
            with torch.inference_mode():
                scores = slide(score, tensor, crop, stride, batch=batch)
                large = F.interpolate(scores, size, mode="bilinear", align_corners=False)
                return probabilities(large, segmenter.temperature)[0]

        def run(pictures: list[np.ndarray], size: Size) -> Tensor:
            if len(pictures) == 1:  # a copy of 19 maps of a large label would hurt
                return one(pictures[0], size)[None]
            return torch.stack([one(picture, size) for picture in pictures])

        return run


def choose(
    architecture: Architecture, config: DatasetConfig, protocol: Protocol | None = None, size: Size | None = None
) -> SinglePass | Published:
    """The way of an evaluation.

    Args:
        architecture: of the network.
        config: the set; it states sizes.
        protocol: None: what the network was made for, windows or the whole picture.
        size: height and width of a single pass; None: the set's.

    Raises:
        ConfigurationError: the network sees windows only, or a size is given for windows.
    """
    windowed = isinstance(architecture.input, WindowInput)
    if protocol == "published" or (protocol is None and windowed):
        if size is not None:
            raise ConfigurationError(f"--size {size[1]}x{size[0]}: belongs to a single pass: choose --protocol single")
        windows = architecture.input if isinstance(architecture.input, WindowInput) else WindowInput()
        return Published(config.published_within, windows)
    if windowed:
        raise ConfigurationError("--protocol single: this network sees windows, never a whole picture: leave it out")
    return SinglePass(size or config.size)


def within(size: Size, limits: tuple[int, int]) -> Size:
    """Height and width of a picture that is scaled, its shape kept, to fit a long and a short side.

    Args:
        size: height and width.
        limits: the two sides it must fit into, in any order.

    Source: spec of MFuser section 5.7: factor = min(long limit / long side, short limit / short side), a new side is
    int(side * factor + 0.5).
    """
    factor = min(max(limits) / max(size), min(limits) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)
