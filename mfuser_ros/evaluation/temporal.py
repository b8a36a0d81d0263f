"""How steady masks are: the share of points of the scene whose label changes from one picture to the next.

A point is followed along the optical flow of the pictures, so that a label which moves with its thing is no change.
Points that are hidden, new, or followed in doubt are left out; so are pairs of pictures that are no neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from mfuser_ros.inference.flow import Effort, FlowTracker
from mfuser_ros.vocabulary import UNKNOWN

LONG_SIDE = 640  # of the grid of followed points
EFFORT: Effort = "fast"
MAX_GAP_S = 0.5  # pictures farther apart are no neighbours
LEAST_SURE = 0.3  # a smaller share of points that can be followed is a cut


class _Frame(NamedTuple):
    grid: np.ndarray  # (h, w) grey
    mask: np.ndarray  # (H, W)
    time_s: float


@dataclass
class Flips:
    """What was counted over pairs of neighbouring pictures.

    Attributes:
        pairs: that were compared.
        cuts: pairs that were left out: a cut, a gap, a jump back in time or another size of picture.
        points: that were followed, over all pairs.
        flips: points whose label changed; to or from unknown counts.
        jumps: flips whose new label was nowhere within one point of the old place: no mere wandering of a border.
        unknown: flips to or from unknown.
        drivable: flips between what may be driven on and what may not (unknown may not).
        point_seconds: sum over the pairs of points times the seconds between the two pictures.
    """

    pairs: int = 0
    cuts: int = 0
    points: int = 0
    flips: int = 0
    jumps: int = 0
    unknown: int = 0
    drivable: int = 0
    point_seconds: float = 0.0

    @property
    def flips_per_s(self) -> float | None:
        """How often a point of the scene changes its label in a second; None where nothing was compared."""
        return self.flips / self.point_seconds if self.point_seconds else None

    def summary(self) -> dict[str, Any]:  # JSON
        """`temporal` of summary.json: rates per point and second, and the shares of the points of a pair."""

        def per_second(count: int) -> float | None:
            return count / self.point_seconds if self.point_seconds else None

        return {
            "flips_per_s": self.flips_per_s,
            "jumps_per_s": per_second(self.jumps),
            "unknown_flips_per_s": per_second(self.unknown),
            "drivable_flips_per_s": per_second(self.drivable),
            "flip_share": self.flips / self.points if self.points else None,
            "pairs": self.pairs,
            "cuts": self.cuts,
            "points_per_pair": self.points / self.pairs if self.pairs else None,
        }


class FlipCounter:
    """Counts flips over one sequence of one camera; give each sequence a counter, or call `cut` in between.

    Args:
        drivable: class ids of what may be driven on.
    """

    def __init__(self, drivable: Collection[int] = (0,)) -> None:
        self.flips = Flips()
        self._tracker = FlowTracker(long_side=LONG_SIDE, effort=EFFORT)
        self._drivable = np.zeros(256, bool)
        self._drivable[list(drivable)] = True
        self._before: _Frame | None = None

    def cut(self) -> None:
        """The next picture follows no other."""
        self._before = None

    def add(self, picture: np.ndarray, mask: np.ndarray, time_s: float) -> None:
        """Compare with what was given before.

        Args:
            picture: uint8 RGB (H, W, 3).
            mask: uint8 (H, W) class ids, 255 unknown.
            time_s: of the picture.

        Raises:
            ValueError: the mask has another size than the picture.
        """
        if mask.shape != picture.shape[:2]:
            raise ValueError(f"mask of {mask.shape} for a picture of {picture.shape[:2]}")
        before, after = self._before, _Frame(self._tracker.grid(picture), mask, time_s)
        self._before = after
        if before is None:
            return
        if before.mask.shape != mask.shape or not 0 < time_s - before.time_s <= MAX_GAP_S:
            self.flips.cuts += 1
        else:
            self._compare(before, after)

    def _compare(self, before: _Frame, after: _Frame) -> None:
        places, sure = self._tracker.track(before.grid, after.grid)
        if sure.mean() < LEAST_SURE:
            self.flips.cuts += 1
            return
        height, width = after.mask.shape
        rows, columns = np.nonzero(sure)
        scale = np.array([width / sure.shape[1], height / sure.shape[0]], np.float32)
        new = after.mask[_pixel(rows, scale[1], height), _pixel(columns, scale[0], width)]
        was = places[rows, columns]
        old = before.mask[_pixel(was[:, 1], scale[1], height), _pixel(was[:, 0], scale[0], width)]
        flipped = new != old
        near = np.round(was[flipped]).astype(np.intp)
        jumped = ~_occurs_near(before.mask, sure.shape, near, new[flipped])
        counts = self.flips
        counts.pairs += 1
        counts.points += len(new)
        counts.flips += int(flipped.sum())
        counts.jumps += int(jumped.sum())
        counts.unknown += int(((new == UNKNOWN) | (old == UNKNOWN))[flipped].sum())
        counts.drivable += int((self._drivable[new] != self._drivable[old]).sum())
        counts.point_seconds += len(new) * (after.time_s - before.time_s)


def count_flips(frames: Iterable[tuple[np.ndarray, np.ndarray, float]], drivable: Collection[int] = (0,)) -> Flips:
    """Flips over one sequence.

    Args:
        frames: picture (uint8 RGB (H, W, 3)), mask (uint8 (H, W)) and time in seconds, in the order of their times.
        drivable: class ids of what may be driven on.
    """
    counter = FlipCounter(drivable)
    for picture, mask, time_s in frames:
        counter.add(picture, mask, time_s)
    return counter.flips


def _pixel(place: np.ndarray, scale: np.float32, size: int) -> np.ndarray:
    """Index of the pixel that holds a place of the grid; centres are at whole coordinates in both."""
    return np.clip(np.round((place + 0.5) * scale - 0.5).astype(np.intp), 0, size - 1)


def _occurs_near(mask: np.ndarray, grid: tuple[int, ...], places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) whether the label stands within one point of the place (N, 2: column, row) in the mask on the grid."""
    small = cv2.resize(mask, (grid[1], grid[0]), interpolation=cv2.INTER_NEAREST)
    found = np.zeros(len(labels), bool)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            rows = np.clip(places[:, 1] + row, 0, grid[0] - 1)
            columns = np.clip(places[:, 0] + column, 0, grid[1] - 1)
            found |= small[rows, columns] == labels
    return found
