"""Cells of one lattice told by the cells of another that is shifted and turned against it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

_BINS = 16  # places of a cell's centre within another cell, along each axis
_ROUNDING = 1e-3  # cells: more than float32 loses in a grid of four million cells
_RING = 2  # cells round the source, so that what lies outside has no neighbour inside
_NEIGHBOURS = tuple(itertools.product((-1, 0, 1), (-1, 0, 1)))  # row, column


@dataclass(frozen=True)
class Turned:
    """Where a lattice lies in another of the same cell size; in cells, corners of the other's at whole numbers."""

    cos: float  # of the turn from the other's axes to its own
    sin: float
    column_0: float  # of the centre of its cell (0, 0), in the other
    row_0: float

    def centres(self, rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
        """Column and row, (rows, cols) float32 each, of the cells' centres in the other lattice."""
        along, up = np.arange(cols), np.arange(rows)[:, None]
        column = (self.column_0 + self.cos * along - self.sin * up).astype(np.float32)
        row = (self.row_0 + self.sin * along + self.cos * up).astype(np.float32)
        return column, row


class Reading:
    """Reads a source lattice at the places of a target lattice.

    A square of the target overlaps at most the 3 x 3 cells round the source cell that holds its centre. Which of them
    depends on the turn, which all squares share, and on the place of the centre within its cell, which is sorted into
    bins; a cell that is overlapped from anywhere in the bin counts as overlapped.

    Args:
        turned: the target in the source.
        target: rows and columns of the target.
        source: rows and columns of the source.
    """

    def __init__(self, turned: Turned, target: tuple[int, int], source: tuple[int, int]) -> None:
        self._source = source
        column, row = turned.centres(*target)
        cell_column, cell_row = np.floor(column), np.floor(row)
        place = _bin(row - cell_row) * _BINS + _bin(column - cell_column)
        self._overlapped = _overlaps(turned.cos, turned.sin).take(place)
        high_row, high_column = source[0] + _RING - 1, source[1] + _RING - 1
        inside_row = np.clip(cell_row, -_RING, high_row).astype(np.int32) + _RING
        inside_column = np.clip(cell_column, -_RING, high_column).astype(np.int32) + _RING
        self._flat = inside_row * (source[1] + 2 * _RING) + inside_column

    def touches(self, *flags: tuple[np.ndarray, bool]) -> list[np.ndarray]:
        """(target rows, columns) bool for each: whether the square overlaps a source cell that is flagged.

        Args:
            flags: one or two of (rows, cols) bool of the source, with the flag of all that lies outside it.
        """
        rows, cols = self._source
        height, width = rows + 2 * _RING, cols + 2 * _RING
        round_it = np.zeros((height, width), np.uint32)
        for which, (inside, outside) in enumerate(flags):
            padded = np.full((height + 2, width + 2), outside, np.uint32)
            padded[_RING + 1 : -_RING - 1, _RING + 1 : -_RING - 1] = inside
            for bit, (up, along) in enumerate(_NEIGHBOURS, 9 * which):
                round_it |= padded[1 + up : 1 + up + height, 1 + along : 1 + along + width] << np.uint32(bit)
        found = round_it.take(self._flat)
        return [(found & (self._overlapped << np.uint32(9 * which))) != 0 for which in range(len(flags))]


def _bin(share: np.ndarray) -> np.ndarray:
    return np.minimum((share * _BINS).astype(np.int32), _BINS - 1)  # float32 rounds the largest shares to 1


def _overlaps(cos: float, sin: float) -> np.ndarray:
    """(bins * bins,) uint32: one bit for each neighbour that a turned unit square overlaps.

    Source: the separating axis theorem for two squares; S. Gottschalk, M. Lin and D. Manocha, OBBTree, 1996.
    """
    middle = (np.arange(_BINS) + 0.5) / _BINS
    reach = 0.5 + (abs(cos) + abs(sin)) / 2  # half sides of both squares, along an axis of either
    slack = 0.5 / _BINS
    result = np.zeros((_BINS, _BINS), np.uint32)
    for bit, (up, along) in enumerate(_NEIGHBOURS):
        dx, dy = along + 0.5 - middle[None, :], up + 0.5 - middle[:, None]
        meets = (np.abs(dx) < reach + slack + _ROUNDING) & (np.abs(dy) < reach + slack + _ROUNDING)
        turned_slack = slack * (abs(cos) + abs(sin)) + _ROUNDING
        meets &= np.abs(cos * dx + sin * dy) < reach + turned_slack
        meets &= np.abs(cos * dy - sin * dx) < reach + turned_slack
        result |= meets.astype(np.uint32) << np.uint32(bit)
    return result.reshape(-1)
