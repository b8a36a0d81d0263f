"""Where each point of a picture was in the picture before: dense optical flow, and how far it can be trusted."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np

Effort = Literal["ultrafast", "fast", "medium"]

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
_SMALLEST = 32  # pixels of a side; below it DIS has no patch to compare


class Track(NamedTuple):
    """Flow from a picture back to the one before, on a grid of its own size."""

    places: np.ndarray  # (h, w, 2) float32: column and row in the grid of the picture before
    sure: np.ndarray  # (h, w) bool: seen in both pictures, and both directions of the flow agree


class FlowTracker:
    """Dense inverse search flow between pictures that are shrunk to a grid.

    Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016 (OpenCV's DISOpticalFlow); the check
    of both directions: Sundaram, Brox and Keutzer, Dense Point Trajectories by GPU-accelerated Large Displacement
    Optical Flow, ECCV 2010, equation 5, with its constants.

    Args:
        long_side: of the grid, pixels; smaller pictures keep their size.
        effort: OpenCV's preset.
    """

    def __init__(self, *, long_side: int, effort: Effort) -> None:
        self._long_side = long_side
        self._flow = cv2.DISOpticalFlow.create(_PRESETS[effort])

    def grid(self, picture: np.ndarray) -> np.ndarray:
        """The picture as `track` takes it: uint8 grey (h, w), shrunk by area.

        Args:
            picture: uint8 RGB (H, W, 3).
        """
        height, width = picture.shape[:2]
        scale = min(1.0, self._long_side / max(height, width))
        size = (max(_SMALLEST, round(width * scale)), max(_SMALLEST, round(height * scale)))
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        return np.asarray(grey if size == (width, height) else cv2.resize(grey, size, interpolation=cv2.INTER_AREA))

    def track(self, before: np.ndarray, after: np.ndarray) -> Track:
        """Find the points of `after` in `before`; both come from `grid` and have one size."""
        height, width = after.shape
        backward = self._flow.calc(after, before, None)  # (h, w, 2)
        forward = self._flow.calc(before, after, None)
        places = backward + pixel_grid(width, height)
        returned = cv2.remap(forward, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        allowed = 0.01 * (_squared(backward) + _squared(returned)) + 0.5
        columns, rows = cv2.split(places)
        inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
        return Track(places, inside & (_squared(backward + returned) <= allowed))


@lru_cache(maxsize=8)
def pixel_grid(width: int, height: int) -> np.ndarray:
    """(height, width, 2) float32: column and row of each pixel; not to be written to."""
    return np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))


def _squared(vectors: np.ndarray) -> np.ndarray:
    """Squared length of each vector: (h, w, 2) -> (h, w)."""
    columns, rows = cv2.split(vectors)
    return np.asarray(columns * columns + rows * rows)
