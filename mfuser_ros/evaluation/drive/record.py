"""Figures of a drive through the node, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mfuser_ros.vocabulary import UNKNOWN, Vocabulary

CORRIDOR_M = 1.8
"""Width of the strip ahead that must be free, metres: about that of a car."""


class Percentiles(NamedTuple):
    """Of some milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """Figures of one frame.

    Attributes:
        time_s: stamp after the first frame's, seconds.
        round_trip_ms: from sending the picture until its mask was here.
        shares: float64 (classes + 1,) share of the pixels of each class, the unknown ones last; sums to 1.
        confidence: mean confidence, 0..1; None where none was recorded.
        drivable_m: see `drivable_distance`; None without a grid.
        free_m2: area of the free cells, square metres; None without a grid.
    """

    time_s: float
    round_trip_ms: float
    shares: np.ndarray
    confidence: float | None
    drivable_m: float | None
    free_m2: float | None


@dataclass(eq=False)
class DriveRecord:
    """Figures of all frames so far, in their order."""

    vocabulary: Vocabulary
    frames: list[FrameRecord] = field(default_factory=list)

    def mean_shares(self) -> np.ndarray:
        """float64 (classes + 1,): shares over the whole drive, the unknown pixels last."""
        return np.asarray(np.mean([frame.shares for frame in self.frames], axis=0))

    def round_trip(self) -> Percentiles:
        """Percentiles of the round trip."""
        return percentiles([frame.round_trip_ms for frame in self.frames])


def percentiles(milliseconds: list[float]) -> Percentiles:
    """Linear percentiles 50, 95, 99; NaN of nothing."""
    if not milliseconds:
        return Percentiles(np.nan, np.nan, np.nan)
    return Percentiles(*(float(value) for value in np.percentile(milliseconds, (50, 95, 99))))


def class_shares(mask: np.ndarray, classes: int) -> np.ndarray:
    """Share of the pixels of each class.

    Args:
        mask: uint8 (H, W) ids below `classes`, or 255.
        classes: how many there are.

    Returns:
        float64 (classes + 1,); the last is the share of 255.
    """
    counts = np.bincount(mask.ravel(), minlength=UNKNOWN + 1)
    return np.append(counts[:classes], counts[UNKNOWN]) / mask.size


def drivable_distance(occupancy: np.ndarray, *, resolution: float, x_min: float, y_min: float) -> float | None:
    """How far ahead of the vehicle's origin the way is free, metres.

    The strip of `CORRIDOR_M` round the x axis is walked forward from its nearest free row of cells until a row is not
    free in its whole width; the answer is the x of that row's near edge. What lies before the nearest free row is the
    blind zone of the camera.

    Args:
        occupancy: int8 (rows, cols), row is y, column is x; 0 is free.
        resolution: side of a cell, metres.
        x_min, y_min: corner of cell (0, 0), metres.

    Returns:
        Metres; 0 where no row of the strip is free; None where the grid does not cover the strip.
    """
    rows, cols = occupancy.shape
    centres_y = y_min + (np.arange(rows) + 0.5) * resolution
    strip = np.abs(centres_y) < CORRIDOR_M / 2
    ahead = x_min + np.arange(cols) * resolution > -resolution / 2
    if not strip.any() or not ahead.any():
        return None
    free = (occupancy[np.ix_(strip, ahead)] == 0).all(axis=0)  # one bool for each column ahead
    if not free.any():
        return 0.0
    start = int(np.argmax(free))
    blocked = np.flatnonzero(~free[start:])
    end = start + int(blocked[0]) if blocked.size else free.size
    first = int(np.argmax(ahead))
    return x_min + (first + end) * resolution
