"""What one picture says about the ground: free cells, contacts, and the ground that the picture misses below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from mfuser_ros.drivable.bearings import Bearings, Shadows, hidden, plan_bearings, plan_shadows
from mfuser_ros.drivable.camera import CameraModel
from mfuser_ros.drivable.footprints import plan_footprints
from mfuser_ros.drivable.grid import GridSpec
from mfuser_ros.drivable.ground import MountedCamera
from mfuser_ros.errors import InputError

_MARKS_PER_CELL = 2  # so that a stretch of ground leaves out no cell that it crosses


@dataclass(frozen=True, eq=False)
class View:
    """One camera's picture, segmented, with the place it was taken from.

    Args:
        mask: (height, width) uint8 class ids of the vocabulary, 255 unknown.
        confidence: (height, width) uint8, probability of the class times 255.
        camera: the lens.
        T_vehicle_camera: (4, 4) camera optical frame to vehicle frame, metres; the ground is z = 0.
    """

    mask: np.ndarray
    confidence: np.ndarray
    camera: CameraModel
    T_vehicle_camera: np.ndarray

    def check(self) -> None:
        """Raises InputError if mask or confidence is no uint8 picture of the camera's size."""
        expected = (self.camera.height, self.camera.width)
        for name, picture in (("mask", self.mask), ("confidence", self.confidence)):
            if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
                raise InputError(f"{name} is {getattr(picture, 'dtype', type(picture).__name__)}: give a uint8 array")
            if picture.shape != expected:
                size = "x".join(map(str, picture.shape[::-1]))
                raise InputError(
                    f"{name} is {size}, the camera is {expected[1]}x{expected[0]}: give a camera model of the mask's size"
                )


class Meaning(NamedTuple):
    """What the pixels mean, as tables over the 256 values of a mask."""

    not_free: np.ndarray  # (256,) uint8: 1 where the class is not of a free role
    stands: np.ndarray  # (256,) uint8: 1 where the class stands on the ground
    surest_unsure: int  # confidence up to here is too low; -1: any will do


class Sight(NamedTuple):
    """One view's evidence."""

    free: np.ndarray  # (n,) int64 flat indices of cells seen to be free
    occupied: np.ndarray  # (m,) int64 flat indices of cells in which something touches the ground
    contacts: np.ndarray  # (c, 4) float32 x, y, z = 0, class id


@dataclass(frozen=True, eq=False)
class ViewPlan:
    """All that does not depend on the picture: made once for a camera at its place over a grid."""

    spec: GridSpec
    foot: np.ndarray  # (2,) below the camera
    rows: slice  # of the picture, from the first that is needed to the last
    width: int
    cells: np.ndarray  # (N,) int64 seen cells
    first_run: np.ndarray  # (N,) int64
    run_starts: np.ndarray  # (R,) int32 into the running count of bad pixels
    run_stops: np.ndarray  # (R,) int32
    bearings: Bearings | None
    samples: np.ndarray  # (B, K) int32 pixels along the bearings within `rows`; one past the end where there is none
    shadows: Shadows | None
    blind: np.ndarray  # (rows, cols) bool: ground between the vehicle and the near edge of the picture
    marks: int  # samples across one pixel's length of ground

    def look(self, mask: np.ndarray, confidence: np.ndarray, meaning: Meaning) -> Sight:
        """Evidence of one picture; mask and confidence as in `View`."""
        if self.bearings is None or self.shadows is None:
            return Sight(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
        seen = mask[self.rows]
        bad, stands = cv2.LUT(seen, meaning.not_free), cv2.LUT(seen, meaning.stands)
        if meaning.surest_unsure >= 0:
            _, unsure = cv2.threshold(confidence[self.rows], meaning.surest_unsure, 1, cv2.THRESH_BINARY_INV)
            bad = cv2.bitwise_or(bad, unsure)
            stands = cv2.subtract(stands, unsure)
        first = self._first_standing(stands)
        open_to_sight = ~hidden(self.shadows, first, self.bearings.full_turn)
        free = self.cells[open_to_sight & self._all_good(bad)]
        return Sight(free, *self._contacts(seen, first))

    def _all_good(self, bad: np.ndarray) -> np.ndarray:
        """(N,) bool: cells without a bad pixel in their footprint."""
        if len(self.cells) == 0:
            return np.zeros(0, bool)
        count = np.zeros(bad.size + 1, np.uint16)  # may wrap round: a run is shorter than 65536 pixels
        np.cumsum(bad.reshape(-1), dtype=np.uint16, out=count[1:])
        bad_runs = count.take(self.run_stops) != count.take(self.run_starts)
        return ~np.logical_or.reduceat(bad_runs, self.first_run)

    def _first_standing(self, stands: np.ndarray) -> np.ndarray:
        """(B,) int32 level of the first standing sample on each bearing; the number of levels if there is none."""
        padded = np.zeros(stands.size + 1, bool)
        padded[:-1] = stands.reshape(-1)
        along = padded.take(self.samples)
        first = np.argmax(along, axis=1)
        found = along[np.arange(len(along)), first]
        return np.where(found, first, self.samples.shape[1]).astype(np.int32)

    def _contacts(self, seen: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells (m,) and points (c, 4) where the first thing on a bearing touches the ground."""
        assert self.bearings is not None
        which = np.flatnonzero(first < self.samples.shape[1])
        level = first[which]
        distance = self.bearings.crossing[which, level].astype(np.float64)
        whole = np.isfinite(distance)  # else its foot lies beyond the picture's edge
        which, level, distance = which[whole], level[whole], distance[whole]
        classes = seen.reshape(-1)[self.samples[which, level]]
        directions = np.stack([np.cos(self.bearings.angles[which]), np.sin(self.bearings.angles[which])], axis=-1)
        contacts = np.zeros((len(which), 4), np.float32)
        contacts[:, :2] = self.foot + directions * distance[:, None]
        contacts[:, 3] = classes
        # Half a pixel to either side: the foot lies between two pixel centres.
        spread = np.linspace(-0.5, 0.5, self.marks) * self.bearings.span[which, level][:, None]
        cells = self.spec.cell_of(self.foot + directions[:, None] * (distance[:, None] + spread)[..., None])
        return cells[cells >= 0], contacts


def plan_view(camera: CameraModel, T_vehicle_camera: np.ndarray, spec: GridSpec, max_pixel_length: float) -> ViewPlan:
    """Plan for one camera at one place.

    Raises:
        CalibrationError: the pose cannot be used.
    """
    mounted = MountedCamera(camera, T_vehicle_camera)
    footprints = plan_footprints(mounted, spec, max_pixel_length)
    bearings = plan_bearings(mounted, max_pixel_length)
    if bearings is None:
        nothing = np.zeros(0, np.int64)
        blind = np.zeros((spec.rows, spec.cols), bool)
        return ViewPlan(
            spec,
            mounted.foot,
            slice(0, 0),
            camera.width,
            nothing,
            nothing,
            nothing,
            nothing,
            None,
            nothing,
            None,
            blind,
            0,
        )
    on_bearings = bearings.pixels[bearings.pixels >= 0] // camera.width
    used = np.concatenate([footprints.rows, on_bearings])
    top, bottom = int(used.min()), int(used.max()) + 1
    samples = np.where(bearings.pixels >= 0, bearings.pixels - top * camera.width, (bottom - top) * camera.width)
    longest = float(np.nanmax(np.where(bearings.pixels >= 0, bearings.span, np.nan)))
    return ViewPlan(
        spec=spec,
        foot=mounted.foot,
        rows=slice(top, bottom),
        width=camera.width,
        cells=footprints.cells,
        first_run=footprints.first_run,
        run_starts=((footprints.rows - top) * camera.width + footprints.starts).astype(np.int32),
        run_stops=((footprints.rows - top) * camera.width + footprints.stops).astype(np.int32),
        bearings=bearings,
        samples=samples.astype(np.int32),
        shadows=plan_shadows(bearings, mounted, spec, footprints.cells),
        blind=_blind_zone(bearings, mounted, spec, footprints.cells),
        marks=int(np.ceil(longest / spec.resolution * _MARKS_PER_CELL)) + 1,
    )


def _blind_zone(bearings: Bearings, mounted: MountedCamera, spec: GridSpec, seen: np.ndarray) -> np.ndarray:
    """Cells with ground between the camera's foot and the near edge of the picture; the foot's own cell always."""
    offset = spec.lattice() - mounted.foot
    turn = (np.arctan2(offset[..., 1], offset[..., 0]) - bearings.angles[0]) % (2 * np.pi)
    nearest = np.searchsorted(bearings.angles - bearings.angles[0], turn, "right") - 1
    within = turn <= (2 * np.pi if bearings.full_turn else bearings.angles[-1] - bearings.angles[0])
    corner = within & (np.linalg.norm(offset, axis=-1) <= bearings.entry_range[nearest])
    blind = corner[:-1, :-1] | corner[:-1, 1:] | corner[1:, :-1] | corner[1:, 1:]
    blind.reshape(-1)[seen] = False
    foot = spec.cell_of(mounted.foot)
    if foot >= 0:
        blind.reshape(-1)[foot] = True
    return np.asarray(blind)
