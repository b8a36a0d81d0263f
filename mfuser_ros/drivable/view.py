"""What one picture says about the ground: free cells, contacts, and the ground that the picture misses below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from mfuser_ros.drivable.bearings import Bearings, Shadows, hidden, plan_bearings, plan_shadows
from mfuser_ros.drivable.camera import CameraModel
from mfuser_ros.drivable.contacts import ContactFinder, Contacts
from mfuser_ros.drivable.footprints import plan_footprints
from mfuser_ros.drivable.grid import GridSpec
from mfuser_ros.drivable.ground import MountedCamera
from mfuser_ros.errors import InputError


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
                camera = f"{expected[1]}x{expected[0]}"
                raise InputError(f"{name} is {size}, the camera is {camera}: give the camera model of that size")


class Meaning(NamedTuple):
    """What the pixels mean, as tables over the 256 values of a mask."""

    not_free: np.ndarray  # (256,) uint8: 1 where the class is not of a free role
    stands: np.ndarray  # (256,) uint8: STANDS_SURELY where the class stands on the ground, else 0
    surest_unsure: int  # confidence up to here is too low; -1: any will do


class Sight(NamedTuple):
    """One view's evidence."""

    free: np.ndarray  # (n,) int64 flat indices of cells seen to be free
    denied: np.ndarray  # (m,) int64 cells that the view knows not to be free, or not to be seen for what stands there
    contacts: Contacts


@dataclass(frozen=True, eq=False)
class ViewPlan:
    """All that does not depend on the picture: made once for a camera at its place over a grid."""

    rows: slice  # of the picture, from the first that is needed to the last
    cells: np.ndarray  # (N,) int64 seen cells
    first_run: np.ndarray  # (N,) int64
    run_starts: np.ndarray  # (R,) int64 into the running count of bad pixels
    run_stops: np.ndarray  # (R,) int64
    blind: np.ndarray  # (rows, cols) bool: ground between the vehicle and the near edge of the picture
    finder: ContactFinder
    shadows: Shadows
    blind_cells: np.ndarray  # (b,) int64 flat indices of `blind`
    blind_shadows: Shadows

    def look(self, mask: np.ndarray, confidence: np.ndarray, meaning: Meaning) -> Sight:
        """Evidence of one picture; mask and confidence as in `View`."""
        seen, confidence = np.ascontiguousarray(mask[self.rows]), np.ascontiguousarray(confidence[self.rows])
        bad, stands = cv2.LUT(seen, meaning.not_free), cv2.LUT(seen, meaning.stands)
        if meaning.surest_unsure >= 0:
            _, unsure = cv2.threshold(confidence, meaning.surest_unsure, 1, cv2.THRESH_BINARY_INV)
            bad = cv2.bitwise_or(bad, unsure)
            stands = cv2.subtract(stands, unsure)  # surely becomes unsurely, 0 stays 0
        first = self.finder.first_standing(stands)
        full_turn = self.finder.bearings.full_turn
        free = ~hidden(self.shadows, first, full_turn) & self._all_good(bad)
        # What stands at the near edge of the picture has its foot on ground that is not seen.
        at_edge = np.where(self.finder.cut_off(first), np.int32(0), np.int32(len(self.finder.bearings.ranges)))
        covered = hidden(self.blind_shadows, at_edge, full_turn)
        denied = np.concatenate([self.cells[~free], self.blind_cells[covered]])
        return Sight(self.cells[free], denied, self.finder.find(seen, stands, first))

    def _all_good(self, bad: np.ndarray) -> np.ndarray:
        """(N,) bool: cells without a bad pixel in their footprint."""
        if len(self.cells) == 0:
            return np.zeros(0, bool)
        count = np.zeros(bad.size + 1, np.int32)
        np.cumsum(bad.reshape(-1), dtype=np.int32, out=count[1:])
        bad_runs = count.take(self.run_stops) != count.take(self.run_starts)
        return ~np.logical_or.reduceat(bad_runs, self.first_run)


def plan_view(
    camera: CameraModel, T_vehicle_camera: np.ndarray, spec: GridSpec, max_pixel_length: float
) -> ViewPlan | None:
    """Plan for one camera at one place; None if it sees no ground finely enough.

    Raises:
        CalibrationError: the pose cannot be used.
    """
    mounted = MountedCamera(camera, T_vehicle_camera)
    bearings = plan_bearings(mounted, max_pixel_length)
    if bearings is None:
        return None
    footprints = plan_footprints(mounted, spec, max_pixel_length)
    used = np.concatenate([footprints.rows, bearings.pixels[bearings.pixels >= 0] // camera.width])
    top, bottom = int(used.min()), int(used.max()) + 1
    first_pixel = (footprints.rows - top) * camera.width
    blind = _blind_zone(bearings, mounted, spec, footprints.cells)
    blind_cells = np.flatnonzero(blind)
    blind_shadows = plan_shadows(bearings, mounted, spec, blind_cells)
    return ViewPlan(
        rows=slice(top, bottom),
        cells=footprints.cells,
        first_run=footprints.first_run,
        run_starts=first_pixel + footprints.starts,
        run_stops=first_pixel + footprints.stops,
        blind=blind,
        finder=ContactFinder.plan(spec, mounted.foot, bearings, top, camera.width),
        shadows=plan_shadows(bearings, mounted, spec, footprints.cells),
        blind_cells=blind_cells,
        blind_shadows=blind_shadows._replace(nearer=np.maximum(blind_shadows.nearer, 1)),  # the edge is never nearer
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
