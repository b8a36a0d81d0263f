"""Painted lane markings in a picture: thin bright strokes on the road."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from mfuser_ros.drivable.camera import CameraModel

_BANDS = 6  # strips of rows, each with a filter as wide as the markings in it
_CONTRAST = 18  # grey levels above the road beside it
_WIDEST_SLANT = 8.0  # columns a row: a line three lanes away
_SHORTEST_ROWS = 6
_STRAY_PIXELS = 2.5


@dataclass(frozen=True, eq=False)
class Stroke:
    """The middle line of one marking, or of one piece of a long one, nearest row last."""

    normal: np.ndarray  # (N, 2) undistorted points in the plane z = 1 of the optical frame


def find_strokes(picture: np.ndarray, camera: CameraModel) -> list[Stroke]:
    """Strokes in the lower half of a picture.

    A horizontal top-hat keeps what is brighter than the road on both sides and narrower than the filter; the width
    follows from perspective, with the horizon near the middle of the picture.

    Args:
        picture: (H, W, 3) uint8 RGB of the camera's size.
        camera: its lens.
    """
    grey = picture[..., 0]  # yellow paint is as bright as white in red light
    height = grey.shape[0]
    strokes = []
    edges = np.linspace(height * 0.5, height, _BANDS + 1).astype(int)
    lines = np.zeros_like(grey)
    for top, bottom in itertools.pairwise(edges):
        broad = max(5, int(0.3 * (bottom - height * 0.5))) | 1
        kernel = np.ones((1, broad), np.uint8)
        band = cv2.GaussianBlur(grey[top:bottom], (3, 3), 0)
        lines[top:bottom] = cv2.morphologyEx(band, cv2.MORPH_TOPHAT, kernel)
    bright = (lines > _CONTRAST).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    for index in range(1, count):
        left, top, width, rows, _ = stats[index]
        if rows < _SHORTEST_ROWS or width > _WIDEST_SLANT * rows:
            continue
        window = (slice(top, top + rows), slice(left, left + width))
        weight = np.where(labels[window] == index, lines[window], 0).astype(np.float64)
        strokes.extend(_pieces(_middle(weight, left, top), camera))
    return strokes


def _middle(weight: np.ndarray, left: int, top: int) -> np.ndarray:
    """(N, 2) column and row of the middle of each row of a component, rows that are cut or torn left out."""
    total = weight.sum(axis=1)
    columns = np.arange(weight.shape[1])
    middle = (weight * columns).sum(axis=1) / np.maximum(total, 1e-9)
    deviation = np.sqrt((weight * (columns - middle[:, None]) ** 2).sum(axis=1) / np.maximum(total, 1e-9))
    reach = np.count_nonzero(weight, axis=1)
    compact = (total > 0) & (deviation < 0.5 * reach + 1)
    return np.asarray(np.column_stack([middle + left, np.arange(len(middle)) + top])[compact])


def _pieces(points: np.ndarray, camera: CameraModel) -> list[Stroke]:
    """Strokes short enough that a bend does not show, without their ends, where paint meets road along the row."""
    points = points[1:-1]
    if len(points) < _SHORTEST_ROWS - 2:
        return []
    longest = max(12, camera.height // 12)
    pieces = []
    for part in np.array_split(points, max(1, len(points) // longest)):
        fit = np.polynomial.Polynomial.fit(part[:, 1], part[:, 0], 1)
        stray = np.abs(fit(part[:, 1]) - part[:, 0])
        if len(part) < _SHORTEST_ROWS - 2 or np.sqrt(np.mean(stray**2)) > _STRAY_PIXELS:
            continue
        rays = camera.rays(part)
        rays = rays[np.isfinite(rays).all(axis=1)]
        if len(rays) >= _SHORTEST_ROWS - 2:
            pieces.append(Stroke(rays[:, :2] / rays[:, 2:]))
    return pieces
