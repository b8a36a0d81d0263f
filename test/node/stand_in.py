"""A Segmenter without a network: what it answers can be read off the picture, and it fails on request."""

from __future__ import annotations

import threading

import numpy as np

from mfuser_ros import vocabulary
from mfuser_ros.errors import InferenceError
from mfuser_ros.inference import Segmentation, Timing

UNSURE = 200
"""A pixel whose green value is this or more is unknown."""


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, which needs a GPU to be raised."""


class StandIn:
    """The class of a pixel is its red value modulo 19, its confidence is its blue value."""

    name = "stand-in"
    sha256 = "0" * 64
    device = "cpu"
    precision = "float32"
    default_threshold = 0.25

    def __init__(self) -> None:
        self.vocabulary = vocabulary.load()
        self.threshold = self.default_threshold
        self.timing = Timing(1.0, 2.0, 3.0)
        self.state = "eager"
        self.error: Exception | None = None
        self.pictures: list[np.ndarray] = []
        self.thresholds: list[float] = []
        self.batches: list[int] = []  # sizes
        self.memory_for = 8  # pictures in one batch
        self.warmed_up: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.takes_s = 0.0  # how slow it is
        self.poison: int | None = None  # red value of the first pixel of a picture that cannot be segmented

    def warm_up(self, height: int, width: int) -> None:
        self.warmed_up.append((height, width))

    def __call__(self, picture: np.ndarray | list[np.ndarray]) -> Segmentation | list[Segmentation]:
        self.entered.set()
        assert self.gate.wait(30)
        threading.Event().wait(self.takes_s)
        if isinstance(picture, list):
            self.batches.append(len(picture))
            if len(picture) > self.memory_for:
                raise OutOfMemoryError("CUDA out of memory.")
            return [self._segment(one) for one in picture]
        self.batches.append(1)
        return self._segment(picture)

    def _segment(self, picture: np.ndarray) -> Segmentation:
        if picture[0, 0, 0] == self.poison:
            raise InferenceError("stand-in: scores are not numbers")
        self.pictures.append(picture.copy())
        self.thresholds.append(self.threshold)
        if self.error is not None:
            raise self.error
        labels = picture[..., 0] % 19
        mask = np.where(picture[..., 1] >= UNSURE, np.uint8(255), labels)
        return Segmentation(picture, mask, picture[..., 2].copy(), labels, self.vocabulary)


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 RGB noise (height, width, 3): every class and some unknown pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
