"""Where the first thing on each bearing touches the ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mfuser_ros.drivable.bearings import HEADING_SCALE, Bearings
from mfuser_ros.drivable.grid import GridSpec

STANDS_SURELY, STANDS_UNSURELY = 2, 1

_STRAIGHT_BELOW = np.arange(1, 5)  # pixels
_BESIDE = np.arange(0, 9, 2)  # pixels; a foot that rises faster than 8 rows a column is taken for a flank
_SAME_SURFACE = 4  # levels between the feet of neighbouring bearings that are joined
_LONGEST_FLANK_M = 3.0  # between two feet of a flank seen edge-on; the cells between them are never free
_MARKS_PER_CELL = 2  # so that a stretch of ground leaves out no cell that it crosses


class Contacts(NamedTuple):
    """The feet of things in one picture."""

    points: np.ndarray  # (c, 4) float32 x, y, z = 0, class id; one per bearing
    cells: np.ndarray  # (m,) int64 flat indices of the cells in which they stand


@dataclass(frozen=True, eq=False)
class ContactFinder:
    """Finds contacts in the part of a picture between two rows."""

    spec: GridSpec
    foot: np.ndarray  # (2,) below the camera
    bearings: Bearings  # with pixels counted from the part's first
    width: int  # of the picture
    marks: int  # samples across one pixel's length of ground

    @classmethod
    def plan(cls, spec: GridSpec, foot: np.ndarray, bearings: Bearings, top: int, width: int) -> ContactFinder:
        """For the part of the picture that begins at row `top`."""
        there = bearings.pixels >= 0
        longest = float(bearings.span[there].max())
        return cls(
            spec,
            foot,
            bearings._replace(pixels=np.where(there, bearings.pixels - top * width, -1)),
            width,
            int(np.ceil(longest / spec.resolution * _MARKS_PER_CELL)) + 1,
        )

    def first_standing(self, stands: np.ndarray) -> np.ndarray:
        """(B,) int32 level at which the first sure thing on each bearing begins, the number of levels if there is none.

        It begins with the unbroken run of standing samples that leads up to its first sure one: a network is unsure
        along the borders of a thing, so also at its foot.

        Args:
            stands: (rows, width) uint8, STANDS_SURELY, STANDS_UNSURELY, or 0.
        """
        padded = np.zeros(stands.size + 1, np.uint8)  # the last one for samples that see nothing
        padded[:-1] = stands.reshape(-1)
        along = padded.take(self.bearings.pixels)
        levels = along.shape[1]
        sure = along == STANDS_SURELY
        first = np.argmax(sure, axis=1)
        found = np.flatnonzero(sure[np.arange(len(sure)), first])
        gap = (along[found] == 0) & (np.arange(levels) < first[found, None])
        begins = np.where(gap.any(axis=1), levels - np.argmax(gap[:, ::-1], axis=1), 0)
        result = np.full(len(along), levels, np.int32)
        result[found] = begins
        return result

    def cut_off(self, first: np.ndarray) -> np.ndarray:
        """(B,) bool: what stands first on the bearing comes into the picture at its edge, so its foot is not in it."""
        inside = np.minimum(first, len(self.bearings.ranges) - 1)
        crossing = self.bearings.crossing[np.arange(len(first)), inside]
        return np.asarray((first < len(self.bearings.ranges)) & ~np.isfinite(crossing))

    def find(self, seen: np.ndarray, stands: np.ndarray, first: np.ndarray) -> Contacts:
        """Contacts of one picture.

        Args:
            seen: (rows, width) uint8 class ids.
            stands: as for `first_standing`.
            first: what that returned.
        """
        which = np.flatnonzero(first < self.bearings.pixels.shape[1])
        level = first[which]
        distance = self.bearings.crossing[which, level].astype(np.float64)
        whole = np.isfinite(distance)  # else the foot lies beyond the picture's edge
        whole &= ~self._on_a_flank(stands, which, level)
        which, level, distance = which[whole], level[whole], distance[whole]
        angles = self.bearings.angles[which]
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        classes = seen.reshape(-1)[self.bearings.pixels[which, level]]
        points = np.zeros((len(which), 4), np.float32)
        feet = self.foot + directions * distance[:, None]
        points[:, :2], points[:, 3] = feet, classes
        # A foot lies between two pixel centres: half a pixel to either side of where the label changes.
        spread = np.linspace(-0.5, 0.5, self.marks) * self.bearings.span[which, level][:, None]
        marks = self.foot + directions[:, None] * (distance[:, None] + spread)[..., None]
        between = self._between(feet, which, level, classes)
        cells = self.spec.cell_of(np.concatenate([marks.reshape(-1, 2), between]))
        return Contacts(points, cells[cells >= 0])

    def _on_a_flank(self, stands: np.ndarray, which: np.ndarray, level: np.ndarray) -> np.ndarray:
        """(c,) bool: the line slid into a thing over its side, well above its foot.

        A bearing that passes a thing by less than half a pixel may meet a pixel of it far up its side. Then the thing
        also stands in a pixel straight below that one, towards the camera's foot, or goes on downwards right beside it.
        """
        below = self._stands_below(stands, which, level, aside=0, steps=_STRAIGHT_BELOW).any(axis=1)
        for side in (-1, 1):
            below |= self._stands_below(stands, which, level, aside=side, steps=_BESIDE).all(axis=1)
        return np.asarray(below)

    def _stands_below(
        self, stands: np.ndarray, which: np.ndarray, level: np.ndarray, *, aside: int, steps: np.ndarray
    ) -> np.ndarray:
        """(c, S) bool: something stands so many pixels back along the line and `aside` pixels beside it."""
        rows, columns = np.divmod(self.bearings.pixels[which, level], self.width)
        heading = self.bearings.heading[which, level] / HEADING_SCALE
        u = np.rint(columns[:, None] - steps * heading[:, :1] - aside * heading[:, 1:]).astype(np.int64)
        v = np.rint(rows[:, None] - steps * heading[:, 1:] + aside * heading[:, :1]).astype(np.int64)
        inside = (u >= 0) & (u < self.width) & (v >= 0) & (v < stands.shape[0])
        return np.asarray(inside & (stands[np.where(inside, v, 0), np.where(inside, u, 0)] != 0))

    def _between(self, feet: np.ndarray, which: np.ndarray, level: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(p, 2) points on the stretches between neighbouring feet of one surface that runs along the line of sight."""
        if len(feet) < 2:
            return np.zeros((0, 2))
        stretch = np.diff(feet, axis=0)
        length = np.linalg.norm(stretch, axis=1)
        farther = np.diff(level)
        alike = (np.diff(which) == 1) & (classes[1:] == classes[:-1])
        joined = alike & (np.abs(farther) <= _SAME_SURFACE)
        edge_on = alike & ~joined & (length <= _LONGEST_FLANK_M) & _ends_soon(joined, farther > 0)
        wide = np.flatnonzero((joined | edge_on) & (length > self.spec.resolution / _MARKS_PER_CELL))
        if len(wide) == 0:
            return np.zeros((0, 2))
        count = int(np.ceil(length[wide].max() / self.spec.resolution * _MARKS_PER_CELL)) + 1
        share = np.linspace(0, 1, count)[:, None]
        return np.asarray((feet[wide][:, None] + share * stretch[wide][:, None]).reshape(-1, 2))


def _ends_soon(joined: np.ndarray, rightwards: np.ndarray) -> np.ndarray:
    """(n,) bool for each pair of neighbours: the surface of the farther one is at most two bearings wide.

    Then it is taken for the flank of the nearer one, seen edge-on; a wider one is another thing behind it.
    """
    padded = np.concatenate([[False, False], joined, [False, False]])
    to_the_right, to_the_left = padded[3:-1] & padded[4:], padded[1:-3] & padded[:-4]
    return np.asarray(~np.where(rightwards, to_the_right, to_the_left))
