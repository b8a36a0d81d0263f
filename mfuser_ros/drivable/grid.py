"""The grid on the ground in which the drivable area is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfuser_ros.errors import ConfigurationError

UNKNOWN_CELL, FREE_CELL, OCCUPIED_CELL = -1, 0, 100
"""Values of an occupancy grid, as planners read nav_msgs/OccupancyGrid."""

MAX_CELLS = 4_000_000


@dataclass(frozen=True)
class GridSpec:
    """Extent and cell size of a grid on the ground, metres in the vehicle frame (x forward, y left).

    Row r spans y_min + r * resolution to y_min + (r + 1) * resolution, column c likewise in x. An extent that is no
    multiple of the resolution is covered by one more row or column.

    Raises:
        ConfigurationError: a number is not finite, the resolution is not positive, an extent is empty, or there
            would be more than four million cells.
    """

    x_min: float = -5.0
    x_max: float = 40.0
    y_min: float = -15.0
    y_max: float = 15.0
    resolution: float = 0.2

    def __post_init__(self) -> None:
        values = (self.x_min, self.x_max, self.y_min, self.y_max, self.resolution)
        if not all(math.isfinite(value) for value in values):
            raise ConfigurationError(f"grid {values} holds a number that is not finite: give metres")
        if self.resolution <= 0:
            raise ConfigurationError(f"grid resolution {self.resolution:g} must be greater than 0 metres")
        for axis, low, high in (("x", self.x_min, self.x_max), ("y", self.y_min, self.y_max)):
            if low >= high:
                raise ConfigurationError(f"grid {axis}_min {low:g} must be less than {axis}_max {high:g}")
        if self.rows * self.cols > MAX_CELLS:
            raise ConfigurationError(
                f"grid of {self.cols} x {self.rows} cells is larger than {MAX_CELLS}: "
                f"raise the resolution {self.resolution:g} or shrink the extent"
            )

    @property
    def rows(self) -> int:
        """Number of cells along y."""
        return _cells(self.y_max - self.y_min, self.resolution)

    @property
    def cols(self) -> int:
        """Number of cells along x."""
        return _cells(self.x_max - self.x_min, self.resolution)

    def lattice(self) -> np.ndarray:
        """(rows + 1, cols + 1, 2) x and y of the cell corners; cell (r, c) has (r, c) to (r + 1, c + 1)."""
        x = self.x_min + self.resolution * np.arange(self.cols + 1)
        y = self.y_min + self.resolution * np.arange(self.rows + 1)
        return np.stack(np.meshgrid(x, y), axis=-1)

    def cell_of(self, points: np.ndarray) -> np.ndarray:
        """Flat cell index r * cols + c of points (..., 2), -1 outside the grid."""
        column = np.floor((points[..., 0] - self.x_min) / self.resolution)
        row = np.floor((points[..., 1] - self.y_min) / self.resolution)
        inside = (column >= 0) & (column < self.cols) & (row >= 0) & (row < self.rows)
        return np.where(inside, row * self.cols + column, -1).astype(np.int64)


def _cells(extent: float, resolution: float) -> int:
    return max(1, math.ceil(extent / resolution - 1e-6))
