"""Rays on the ground from the camera's foot, and the pixels along them.

A vertical plane through the camera meets the ground in such a ray and the picture in one line, near ground first. What
stands on the ground covers the part of the line from its foot upwards, so the first standing pixel along a bearing is
the foot of the first thing, and all that lies further out on that bearing is behind it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfuser_ros.drivable.grid import GridSpec
from mfuser_ros.drivable.ground import MountedCamera
from mfuser_ros.errors import CalibrationError

_SPACING = 1.0  # pixels between neighbours, along a bearing and from bearing to bearing
_COARSE_BEARINGS = 720
_COARSE_LEVELS = 256
_FARTHEST_M = 1000.0  # a ray so flat is at the horizon

_MOST_SAMPLES = 12_000_000  # what planning holds at once stays below a gigabyte

HEADING_SCALE = 64


class Bearings(NamedTuple):
    """A polar lattice round the camera's foot whose neighbours lie at most about a pixel apart in the picture."""

    angles: np.ndarray  # (B,) ascending, radians in the vehicle frame, less than a turn from first to last
    ranges: np.ndarray  # (K,) ascending distances from the foot, metres
    pixels: np.ndarray  # (B, K) int64 flat index row * width + column of the nearest pixel, -1 outside or too far
    crossing: np.ndarray  # (B, K) float32 range where the line passes into this sample's pixel; NaN if cut off before
    span: np.ndarray  # (B, K) float32 ground metres of one pixel at that place
    heading: np.ndarray  # (B, K, 2) int8 direction of the line in the picture, 64ths of a pixel per pixel of way
    entry_range: np.ndarray  # (B,) range where the bearing enters the picture at its near edge; 0 if it does not
    full_turn: bool  # the bearings go all the way round


def plan_bearings(mounted: MountedCamera, max_pixel_length: float) -> Bearings | None:
    """The lattice for one camera; None if it sees no ground finely enough.

    Raises:
        CalibrationError: the picture is so large that the lattice would not fit.
    """
    camera = mounted.camera
    coarse = np.linspace(-np.pi, np.pi, _COARSE_BEARINGS, endpoint=False)
    slant = np.linspace(0, np.arctan(_FARTHEST_M / mounted.height_m), _COARSE_LEVELS)
    points = _polar(mounted, coarse, mounted.height_m * np.tan(slant))
    pixels = mounted.project(points)
    with np.errstate(invalid="ignore"):
        inside = camera.contains(pixels) & (mounted.pixel_length(points) <= max_pixel_length)
    if not inside[:, 1:].any():  # range 0 is one point
        return None
    angles, full_turn = _spread_bearings(coarse, pixels, inside)
    ranges = mounted.height_m * np.tan(_spread_levels(slant, pixels, inside))
    if len(angles) * len(ranges) > _MOST_SAMPLES:
        raise CalibrationError(
            f"picture of {camera.width}x{camera.height} has {len(angles)} x {len(ranges)} samples of ground, "
            f"{_MOST_SAMPLES} are allowed: make masks smaller with <cam>.output_size or cut the picture with <cam>.roi"
        )
    return _fine(mounted, angles, ranges, max_pixel_length, full_turn)


def _polar(mounted: MountedCamera, angles: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.asarray(mounted.foot + directions[:, None] * ranges[:, None])  # (B, K, 2)


def _spread_bearings(coarse: np.ndarray, pixels: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, bool]:
    """Angles a pixel apart over the bearings that cross the picture, one coarse step beyond on either side."""
    used = inside[:, 1:].any(axis=1)  # at range 0 all bearings coincide
    used |= np.roll(used, 1) | np.roll(used, -1)
    full_turn = bool(used.all())
    gap_end = 0 if full_turn else _end_of_longest_gap(used)
    turned = np.roll(np.arange(len(coarse)), -gap_end)
    step = 2 * np.pi / len(coarse)
    unwrapped = coarse[gap_end] + step * np.arange(len(coarse) + 1)
    here, there = turned, np.roll(turned, -1)
    shift = np.linalg.norm(pixels[there] - pixels[here], axis=-1)
    shift = np.where(inside[here] | inside[there], np.nan_to_num(shift), 0.0).max(axis=1)
    last = len(coarse) if full_turn else int(np.flatnonzero(used[turned])[-1])
    shift = np.where(used[here] & used[there], np.maximum(shift, 1.0), 0.0)[:last]
    walked = np.concatenate([[0.0], np.cumsum(shift)])
    count = max(2, int(np.ceil(walked[-1] / _SPACING)) + 1)
    angles = np.interp(np.linspace(0, walked[-1], count), walked, unwrapped[: last + 1])
    return (angles[:-1] if full_turn else angles), full_turn


def _end_of_longest_gap(used: np.ndarray) -> int:
    """Index of the first used bearing after the longest run of unused ones, round the circle."""
    first = np.flatnonzero(used & ~np.roll(used, 1))
    lengths = []
    for index in first:
        back = np.roll(used[::-1], index)  # back[0] is used[index - 1]
        lengths.append(int(np.argmax(back)) if back.any() else 0)
    return int(first[int(np.argmax(lengths))])


def _spread_levels(slant: np.ndarray, pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Angles from the vertical a pixel apart along the steepest bearing, one coarse step beyond on either side."""
    levels = np.flatnonzero(inside.any(axis=0))
    low, high = max(levels[0] - 1, 0), min(levels[-1] + 1, len(slant) - 1)
    shift = np.linalg.norm(np.diff(pixels[:, low : high + 1], axis=1), axis=-1)
    near = inside[:, low:high] | inside[:, low + 1 : high + 1]
    shift = np.maximum(np.where(near, np.nan_to_num(shift), 0.0).max(axis=0), 1e-3)
    walked = np.concatenate([[0.0], np.cumsum(shift)])
    count = max(3, int(np.ceil(walked[-1] / _SPACING)) + 1)
    return np.asarray(np.interp(np.linspace(0, walked[-1], count), walked, slant[low : high + 1]))


def _fine(
    mounted: MountedCamera, angles: np.ndarray, ranges: np.ndarray, max_pixel_length: float, full_turn: bool
) -> Bearings:
    camera = mounted.camera
    pixels = mounted.project(_polar(mounted, angles, ranges))  # (B, K, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.linalg.norm(np.diff(pixels, axis=1), axis=-1)  # (B, K - 1)
        length = np.diff(ranges) / shift
        span = np.concatenate([length[:, :1], length], axis=1)  # of the step that leads to each sample
        visible = camera.contains(pixels)
        inside = visible & (span <= max_pixel_length)
    nearest = np.rint(np.where(inside[..., None], pixels, 0)).astype(np.int64)
    flat = np.where(inside, nearest[..., 1] * camera.width + nearest[..., 0], -1)
    crossing = np.full(flat.shape, np.nan, np.float32)
    crossing[:, 1:] = np.where(
        inside[:, 1:] & inside[:, :-1], ranges[:-1] + _crossed(pixels, nearest) * np.diff(ranges), np.nan
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        heading = np.nan_to_num(np.diff(pixels, axis=1) / shift[..., None])
    return Bearings(
        angles,
        ranges,
        flat,
        crossing,
        span.astype(np.float32),
        np.rint(HEADING_SCALE * np.concatenate([heading[:, :1], heading], axis=1)).astype(np.int8),
        _entry_ranges(mounted, pixels, visible, ranges),
        full_turn,
    )


def _crossed(pixels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """(B, K - 1) share of each step at which it passes from one nearest pixel to the next; 0.5 if it stays."""
    step, jump = np.diff(pixels, axis=1), np.diff(nearest, axis=1)
    axis = np.argmax(np.abs(jump), axis=-1)[..., None]
    border = np.take_along_axis((nearest[:, 1:] + nearest[:, :-1]) / 2, axis, axis=-1)[..., 0]
    start = np.take_along_axis(pixels[:, :-1], axis, axis=-1)[..., 0]
    along = np.take_along_axis(step, axis, axis=-1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.abs(along) > 1e-9, (border - start) / along, 0.5)
    return np.asarray(np.clip(np.nan_to_num(share, nan=0.5), 0.0, 1.0))


def _entry_ranges(mounted: MountedCamera, pixels: np.ndarray, visible: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Where each bearing comes into the picture, if it does so at the edge that faces the ground below the camera."""
    camera = mounted.camera
    right, down = -mounted.pose[2, 0], -mounted.pose[2, 1]  # the vertical, downwards, along the picture's axes
    axis, sign = (1, down) if abs(down) >= abs(right) else (0, right)
    size = camera.height if axis == 1 else camera.width
    first = np.argmax(visible, axis=1)
    position = pixels[np.arange(len(pixels)), first, axis]
    distance = (size - 1 - position) if sign > 0 else position
    with np.errstate(invalid="ignore"):
        at_near_edge = visible.any(axis=1) & (distance <= 2 * _SPACING)
    return np.where(at_near_edge, ranges[first], 0.0)


class Shadows(NamedTuple):
    """For each seen cell: the bearings that cross it and how many levels lie nearer than its far corner."""

    lowest: np.ndarray  # (N,) int64 into a flat table of running minima over 2^level bearings
    highest: np.ndarray  # (N,) int64
    nearer: np.ndarray  # (N,) int32
    table_levels: int


def plan_shadows(bearings: Bearings, mounted: MountedCamera, spec: GridSpec, cells: np.ndarray) -> Shadows:
    """Which first contacts put which of `cells` (flat indices) out of sight."""
    count = len(bearings.angles)
    row, column = np.divmod(cells, spec.cols)
    lattice = spec.lattice()
    offsets = np.stack([lattice[row + dr, column + dc] for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0))], axis=1)
    offsets = offsets - mounted.foot  # (N, 4, 2)
    middle = offsets.mean(axis=1)
    centre = np.arctan2(middle[:, 1], middle[:, 0])
    aside = np.arctan2(offsets[..., 1], offsets[..., 0]) - centre[:, None]
    aside = (aside + np.pi) % (2 * np.pi) - np.pi
    start = (centre + aside.min(axis=1) - bearings.angles[0]) % (2 * np.pi)
    stop = start + np.ptp(aside, axis=1)
    marks = bearings.angles - bearings.angles[0]
    if bearings.full_turn:
        marks = np.concatenate([marks, marks + 2 * np.pi, [4 * np.pi]])
    first = np.clip(np.searchsorted(marks, start, "right") - 1, 0, len(marks) - 1)
    last = np.clip(np.searchsorted(marks, stop, "left"), first, len(marks) - 1)
    holds_foot = np.abs(middle).max(axis=1, initial=0.0) <= spec.resolution / 2
    first, last = np.where(holds_foot, 0, first), np.where(holds_foot, count - 1, last)
    length = last - first + 1
    level = np.floor(np.log2(length)).astype(np.int64)
    width = len(marks)
    far = np.linalg.norm(offsets, axis=-1).max(axis=1, initial=0.0)
    nearer = np.searchsorted(bearings.ranges, far, "left").astype(np.int32)
    table_levels = int(level.max(initial=0)) + 1
    return Shadows(level * width + first, level * width + last - (1 << level) + 1, nearer, table_levels)


def hidden(shadows: Shadows, first_standing: np.ndarray, full_turn: bool) -> np.ndarray:
    """(N,) bool: cells with something standing nearer than their far corner on a bearing that crosses them.

    Args:
        shadows: the plan.
        first_standing: (B,) int32 level of the first standing sample of each bearing, the number of levels if none.
        full_turn: of the bearings.
    """
    row = np.concatenate([first_standing, first_standing, first_standing[:1]]) if full_turn else first_standing
    table = np.full((shadows.table_levels, len(row)), np.iinfo(np.int32).max, np.int32)
    table[0] = row
    for level in range(1, shadows.table_levels):
        half = 1 << (level - 1)
        np.minimum(table[level - 1, :-half], table[level - 1, half:], out=table[level, :-half])
    flat = table.reshape(-1)
    return np.asarray(np.minimum(flat[shadows.lowest], flat[shadows.highest]) < shadows.nearer)
