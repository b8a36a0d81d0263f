"""Lines that run along the road: painted markings in a picture, the road's edges in a mask."""

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
_FRAYED_PIXELS = 7
_KERB_PIXELS = 5  # a bright kerbstone lies so close to the road's edge in a mask


@dataclass(frozen=True, eq=False)
class Stroke:
    """A piece of a line along the road, short enough that a bend does not show, nearest row last."""

    normal: np.ndarray  # (N, 2) undistorted points in the plane z = 1 of the optical frame


def find_strokes(picture: np.ndarray, camera: CameraModel, road: np.ndarray | None = None) -> list[Stroke]:
    """Middle lines of thin bright strokes in the lower half of a picture.

    A horizontal top-hat keeps what is brighter than the road on both sides and narrower than the filter; the width
    follows from perspective, with the horizon near the middle of the picture.

    Args:
        picture: (H, W, 3) uint8 RGB of the camera's size.
        camera: its lens.
        road: (H, W) bool, where there is road, from a mask of the picture; None: anywhere.
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
    if road is not None:
        bright &= cv2.erode(road.view(np.uint8), np.ones((_KERB_PIXELS, _KERB_PIXELS), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    for index in range(1, count):
        left, top, width, rows, _ = stats[index]
        if rows < _SHORTEST_ROWS or width > _WIDEST_SLANT * rows:
            continue
        window = (slice(top, top + rows), slice(left, left + width))
        weight = np.where(labels[window] == index, lines[window], 0).astype(np.float64)
        strokes.extend(_pieces(_middle(weight, left, top)[1:-1], camera))  # at its ends paint meets road along the row
    return strokes


def find_edges(road: np.ndarray, beside: np.ndarray, camera: CameraModel) -> list[Stroke]:
    """The left and the right edge of the road, where the road ends at what lies or stands beside it.

    An edge at a vehicle, a person, the picture's border or a pixel of which nothing is known tells nothing.

    Args:
        road: (H, W) bool, where there is road.
        beside: (H, W) bool, where there is what a road ends at: sidewalk, terrain, walls.
        camera: the lens.
    """
    smooth = cv2.medianBlur(road.view(np.uint8), _FRAYED_PIXELS)  # a network's edges are frayed
    count, labels, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
    if count < 2:
        return []
    beside = cv2.medianBlur(beside.view(np.uint8), _FRAYED_PIXELS) > 0
    largest = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    rows = np.flatnonzero(largest.any(axis=1))
    width = road.shape[1]
    strokes = []
    for columns, out in ((np.argmax(largest, axis=1), -1), (width - 1 - np.argmax(largest[:, ::-1], axis=1), 1)):
        neighbour = columns[rows] + 2 * out
        inside = (neighbour >= 0) & (neighbour < width)
        good = rows[inside & beside[rows, np.clip(neighbour, 0, width - 1)]]
        points = np.column_stack([columns[good] + 0.5 * out, good]).astype(np.float64)
        torn = (np.diff(good) > 1) | (np.abs(np.diff(points[:, 0])) > _WIDEST_SLANT)
        for part in np.split(points, np.flatnonzero(torn) + 1):
            strokes.extend(_pieces(part, camera))
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
    """Strokes of (N, 2) columns and rows, without those that are not straight."""
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
