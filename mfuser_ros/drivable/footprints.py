"""Which pixels speak for which cell: the picture of each cell as runs along picture rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfuser_ros.drivable.grid import GridSpec
from mfuser_ros.drivable.ground import MountedCamera

_LONGEST_CHORD = 8.0  # pixels: a lens bends so short a piece of a straight line by less than 0.05 pixel
_ENTRIES_AT_ONCE = 1_000_000


class Footprints(NamedTuple):
    """For each seen cell the pixels whose centres lie less than one pixel from the cell's projection.

    Those are all pixels that the projection overlaps and, where the cell is smaller than a pixel, the pixels round
    it; never more than half a pixel beyond what it overlaps.
    """

    cells: np.ndarray  # (N,) int64 flat cell indices, ascending
    first_run: np.ndarray  # (N,) int64 index of each cell's first run
    rows: np.ndarray  # (R,) int64 picture row of each run
    starts: np.ndarray  # (R,) int64 first column
    stops: np.ndarray  # (R,) int64 one past the last column


def plan_footprints(mounted: MountedCamera, spec: GridSpec, max_pixel_length: float) -> Footprints:
    """The footprints of the cells that the camera sees whole and finely enough.

    A cell is seen if its corners lie within the outermost pixel centres, and fine enough if one pixel covers at most
    `max_pixel_length` metres of ground along the ray at each of them.
    """
    lattice = spec.lattice()
    pixels = mounted.project(lattice)
    with np.errstate(invalid="ignore"):
        usable = mounted.camera.contains(pixels) & (mounted.pixel_length(lattice) <= max_pixel_length)
    seen = usable[:-1, :-1] & usable[:-1, 1:] & usable[1:, :-1] & usable[1:, 1:]
    cells = np.flatnonzero(seen)
    row, column = np.divmod(cells, spec.cols)
    corners = np.stack([pixels[row + dr, column + dc] for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0))], axis=1)
    pieces = np.ones(len(cells), np.int64)
    if mounted.camera.D.any() or mounted.camera.model == "equidistant":
        longest = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1).max(axis=1, initial=0.0)
        pieces = 2 ** np.ceil(np.log2(np.maximum(longest / _LONGEST_CHORD, 1.0))).astype(np.int64)
    order: list[np.ndarray] = [np.zeros(0, np.int64)]
    runs: list[np.ndarray] = [np.zeros((0, 3), np.int64)]
    for count in np.unique(pieces):
        members = np.flatnonzero(pieces == count)
        rows_of = np.ptp(corners[members, :, 1], axis=1) + 4
        batches = np.floor(np.cumsum(rows_of) * 4 * count / _ENTRIES_AT_ONCE)
        for batch in np.unique(batches):
            chosen = members[batches == batch]
            if count == 1:
                outline = corners[chosen]
            else:
                outline = mounted.project(_outline(lattice, row[chosen], column[chosen], int(count)))
            owner, found = _runs(outline, mounted.camera.width, mounted.camera.height)
            order.append(chosen[owner])
            runs.append(found)
    owners, flat = np.concatenate(order), np.concatenate(runs)
    sorting = np.argsort(owners, kind="stable")
    owners, flat = owners[sorting], flat[sorting]
    first_run = np.searchsorted(owners, np.arange(len(cells)))
    return Footprints(cells, first_run, flat[:, 0], flat[:, 1], flat[:, 2])


def _outline(lattice: np.ndarray, row: np.ndarray, column: np.ndarray, pieces: int) -> np.ndarray:
    """(N, 4 * pieces, 2) ground points round each cell."""
    corners = np.stack([lattice[row + dr, column + dc] for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0))], axis=1)
    share = (np.arange(pieces) / pieces)[:, None]
    following = np.roll(corners, -1, axis=1)
    points = corners[:, :, None] + share * (following - corners)[:, :, None]  # (N, 4, pieces, 2)
    return np.asarray(points.reshape(len(row), 4 * pieces, 2))


def _runs(outline: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels less than one pixel from polygons (N, M, 2): owner (R,) and row, start, stop (R, 3)."""
    v = outline[..., 1]
    first = np.maximum(np.floor(v.min(axis=1)), 0).astype(np.int64)
    last = np.minimum(np.ceil(v.max(axis=1)), height - 1).astype(np.int64)
    count = last - first + 1
    owner = np.repeat(np.arange(len(outline)), count)
    rows = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + first[owner]
    low, high = (rows - 1.0)[:, None], (rows + 1.0)[:, None]
    a, b = outline[owner], np.roll(outline, -1, axis=1)[owner]  # (R, M, 2) edges
    va, vb = a[..., 1], b[..., 1]
    rise = vb - va
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(np.abs(rise) > 1e-12, (b[..., 0] - a[..., 0]) / rise, 0.0)
    touches = (np.minimum(va, vb) <= high) & (np.maximum(va, vb) >= low)
    level = np.abs(rise) <= 1e-12
    u_in = a[..., 0] + slope * (np.clip(va, low, high) - va)
    u_out = np.where(level, b[..., 0], a[..., 0] + slope * (np.clip(vb, low, high) - va))
    left = np.where(touches, np.minimum(u_in, u_out), np.inf).min(axis=1)
    right = np.where(touches, np.maximum(u_in, u_out), -np.inf).max(axis=1)
    starts = np.clip(np.floor(left), 0, width - 1).astype(np.int64)
    stops = np.clip(np.ceil(right), 0, width - 1).astype(np.int64) + 1
    return owner, np.column_stack([rows, starts, stops])
