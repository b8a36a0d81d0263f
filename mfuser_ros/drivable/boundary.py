"""The outline of the free area as somebody in the vehicle sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuser_ros.drivable.grid import FREE_CELL, UNKNOWN_CELL, GridSpec

_RAYS = 720


@dataclass(frozen=True, eq=False)
class Sweep:
    """Rays from the vehicle's origin over a grid: planned once, used for every update.

    On each ray the free stretch runs from the first free cell, if nothing occupied lies before it, to the next cell
    that is not free. So the outline holds free ground only and has no holes; free ground that shows beyond a gap is
    in the grid but not in the outline.
    """

    angles: np.ndarray  # (A,) radians, ascending
    step_m: float
    cells: np.ndarray  # (A, S) int64 flat cell index of sample s, at distance s * step_m; rows * cols outside the grid

    @classmethod
    def plan(cls, spec: GridSpec) -> Sweep:
        """The rays for one grid."""
        angles = -np.pi + 2 * np.pi / _RAYS * np.arange(_RAYS)
        step = spec.resolution / 2
        corners = spec.lattice()[[0, 0, -1, -1], [0, -1, 0, -1]]
        distances = step * np.arange(int(np.ceil(np.linalg.norm(corners, axis=1).max() / step)) + 2)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, None] * distances[:, None]
        cells = spec.cell_of(points)
        meets = (cells >= 0).any(axis=0)
        cells = cells[:, : int(np.flatnonzero(meets)[-1]) + 2] if meets.any() else cells[:, :2]
        return cls(angles, step, np.where(cells >= 0, cells, spec.rows * spec.cols))

    def outline(self, occupancy: np.ndarray) -> np.ndarray:
        """The largest outline in an occupancy grid (rows, cols) of -1, 0, 100.

        Returns:
            (M, 2) float32 x and y, counter-clockwise, a simple polygon whose last point joins the first; (0, 2) where
            nothing free is seen from the vehicle.
        """
        seen = np.append(occupancy.reshape(-1), np.int8(UNKNOWN_CELL))[self.cells]
        free = seen == FREE_CELL
        first = np.argmax(seen != UNKNOWN_CELL, axis=1)  # free or occupied, whatever comes first
        rays = np.arange(len(first))
        starts = free[rays, first]
        if not starts.any():
            return np.zeros((0, 2), np.float32)
        free |= np.arange(free.shape[1]) < first[:, None]
        near = np.maximum(first - 0.5, 0.0) * self.step_m
        far = (np.argmin(free, axis=1) - 0.5) * self.step_m
        return self._polygon(np.flatnonzero(starts), near, far)

    def _polygon(self, rays: np.ndarray, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        """Neighbouring rays whose stretches overlap make one region; the largest is drawn."""
        total = len(self.angles)
        following = np.roll(rays, -1)
        joined = (following == (rays + 1) % total) & (near[following] < far[rays]) & (near[rays] < far[following])
        if len(rays) == total and joined.all():
            return self._points(rays, far[rays])
        rays = np.roll(rays, -(int(np.flatnonzero(~joined)[0]) + 1))
        joined = np.roll(joined, -(int(np.flatnonzero(~joined)[0]) + 1))
        runs = np.split(rays, np.flatnonzero(~joined)[:-1] + 1)
        best = max(runs, key=lambda run: float((far[run[1:]] ** 2 - near[run[1:]] ** 2).sum()))
        if len(best) < 2:
            return np.zeros((0, 2), np.float32)
        outer = self._points(best, far[best])
        if not near[best].any():  # the vehicle itself stands on free ground
            return np.concatenate([outer, np.zeros((1, 2), np.float32)])
        return np.concatenate([outer, self._points(best[::-1], near[best[::-1]])])

    def _points(self, rays: np.ndarray, distance: np.ndarray) -> np.ndarray:
        directions = np.stack([np.cos(self.angles[rays]), np.sin(self.angles[rays])], axis=-1)
        return np.asarray(directions * distance[:, None], np.float32)
