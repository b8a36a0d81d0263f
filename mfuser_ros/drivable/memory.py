"""What was seen a moment ago, carried along by odometry until it is too old."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from mfuser_ros.drivable.grid import GridSpec
from mfuser_ros.drivable.resampling import Reading, Turned
from mfuser_ros.errors import ConfigurationError, InputError

LONGEST_DECAY_S = 60.0
FASTEST_M_S, JUMP_M = 70.0, 0.5
FASTEST_TURN_RAD_S, JUMP_RAD = 3.0, 0.1
STEEPEST_RAD = np.radians(20.0)

_MAX_CELLS = 16_000_000
_SHIFT_CELLS = 64  # the window moves in strides, so that most updates copy nothing
_FARTHEST_M = 1e8  # from the odometry's origin; a float64 still tells a tenth of a micrometre there
_NEVER = -np.inf
_BRIDGE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
# cells; turned by 45 degrees a square is 1.4 cells across, so remembered ground may shrink by 2.8 from the near edge of
# the picture that showed it


class Evidence(NamedTuple):
    """What the views of one moment say of the grid, (rows, cols) bool each."""

    free: np.ndarray  # seen to be free
    denied: np.ndarray  # looked at, or hidden by something seen, and not free: older sight of free ground is void
    occupied: np.ndarray  # something stands here
    blind: np.ndarray  # between a camera and the near edge of its picture


class Memory:
    """The newest sight of every place round the vehicle, on a lattice that is fixed in the odometry's frame.

    Sights enter that lattice once and are read once, so a place is no worse told after a hundred updates than after
    one. Both times a square is free only if all that it overlaps is free: free ground shrinks by up to 1.4 cells
    and never grows. What stands moves with its cell's centre and keeps its size.

    Args:
        spec: the grid in the vehicle frame.
        decay_s: age beyond which a sight is forgotten.

    Raises:
        ConfigurationError: a decay that is not from 0 to 60 s, or a grid so long that the memory would not fit.
    """

    def __init__(self, spec: GridSpec, decay_s: float) -> None:
        if not 0 < decay_s <= LONGEST_DECAY_S:
            raise ConfigurationError(f"decay_s {decay_s:g} must be from 0 (off) to {LONGEST_DECAY_S:g} seconds")
        corners = spec.lattice()[[0, 0, -1, -1], [0, -1, 0, -1]]
        reach = int(np.ceil(np.linalg.norm(corners, axis=1).max() / spec.resolution)) + 2
        side = 2 * (reach + _SHIFT_CELLS)
        if side * side > _MAX_CELLS:
            raise ConfigurationError(
                f"grid of {spec.cols} x {spec.rows} cells is too large for decay_s {decay_s:g}: its turns fill "
                f"{side} x {side} cells, {_MAX_CELLS} are allowed; raise the resolution, shrink the extent or set it 0"
            )
        self.decay_s = float(decay_s)
        self._spec = spec
        self._side = side
        self._free_at = np.full((side, side), _NEVER)
        self._occupied_at = np.full((side, side), _NEVER)
        self._blind_at = np.full((spec.rows, spec.cols), _NEVER)  # in the vehicle frame: cameras ride along
        self._corner = np.zeros(2, np.int64)  # column and row of the window's first cell in the endless lattice
        self._last: tuple[float, np.ndarray] | None = None
        self._empty = True

    def forget(self) -> None:
        """Start afresh."""
        if not self._empty:
            for times in (self._free_at, self._occupied_at, self._blind_at):
                times.fill(_NEVER)
        self._empty, self._last = True, None

    def remember(self, evidence: Evidence, stamp_s: float, T_odom_vehicle: np.ndarray) -> Evidence:
        """Take in what is seen now and tell what is known with it.

        Args:
            evidence: of the views.
            stamp_s: when they were taken, seconds of any clock that runs on.
            T_odom_vehicle: (4, 4) where the vehicle was then, metres, in a frame in which the ground stands still.

        Returns:
            The evidence with what is remembered: free where no view of now looks, occupied where nothing free is
            seen, `denied` as it was, and `blind` the ground over which free ground is joined to the vehicle: the
            blind zones of all views that are remembered, with the rim by which remembered ground shrinks.

        Raises:
            InputError: a stamp that is not finite or no rigid transform.
        """
        pose = _checked(stamp_s, T_odom_vehicle)
        if pose[2, 2] < np.cos(STEEPEST_RAD):
            return evidence  # the grid is no map of the odometry's plane
        if self._jumped(stamp_s, pose):
            self.forget()
        if self._last is None or stamp_s >= self._last[0]:
            self._last = (stamp_s, pose)
        self._empty = False
        yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
        self._follow(pose[:2, 3])
        self._write(evidence, stamp_s, pose[:2, 3], yaw)
        return self._read(evidence, stamp_s, pose[:2, 3], yaw)

    def _jumped(self, stamp_s: float, pose: np.ndarray) -> bool:
        """Time or the vehicle has moved as neither can: a bag that starts over, an odometry that was reset."""
        if self._last is None:
            return False
        last_s, last = self._last
        passed = stamp_s - last_s
        if passed < -self.decay_s:
            return True
        distance = float(np.linalg.norm(pose[:3, 3] - last[:3, 3]))
        turn = float(np.arccos(np.clip((np.trace(pose[:3, :3].T @ last[:3, :3]) - 1) / 2, -1, 1)))
        return distance > JUMP_M + FASTEST_M_S * abs(passed) or turn > min(
            JUMP_RAD + FASTEST_TURN_RAD_S * abs(passed), np.pi
        )

    def _follow(self, position: np.ndarray) -> None:
        """Move the window by whole cells so that the vehicle is near its middle."""
        middle = np.floor(position / self._spec.resolution).astype(np.int64)
        wanted = middle - self._side // 2
        shift = wanted - self._corner
        if np.abs(shift).max() <= _SHIFT_CELLS:
            return
        self._corner = wanted
        for times in (self._free_at, self._occupied_at):
            _shift(times, int(shift[0]), int(shift[1]))

    def _write(self, evidence: Evidence, stamp_s: float, position: np.ndarray, yaw: float) -> None:
        """Into the cells of the window that the grid covers; never over what is newer."""
        spec = self._spec
        (low_column, low_row), (high_column, high_row) = self._covered(position, yaw)
        window = (slice(low_row, high_row), slice(low_column, high_column))
        first = (self._corner + [low_column, low_row] + 0.5) * spec.resolution - position  # of the first cell's centre
        cos, sin = float(np.cos(yaw)), float(np.sin(yaw))
        turned = Turned(
            cos,
            -sin,
            float((cos * first[0] + sin * first[1] - spec.x_min) / spec.resolution),
            float((cos * first[1] - sin * first[0] - spec.y_min) / spec.resolution),
        )
        reading = Reading(turned, (high_row - low_row, high_column - low_column), (spec.rows, spec.cols))
        unseen, denied = reading.touches((~evidence.free, True), (evidence.denied | evidence.occupied, False))
        free_at, occupied_at = self._free_at[window], self._occupied_at[window]
        no_newer = free_at <= stamp_s
        np.copyto(free_at, _NEVER, where=denied & no_newer)
        free = ~unseen
        np.copyto(occupied_at, _NEVER, where=free & (occupied_at <= stamp_s))
        np.copyto(free_at, stamp_s, where=free & no_newer)
        column, row = self._places(np.flatnonzero(evidence.occupied), position, yaw)
        current = self._free_at[row, column] <= stamp_s  # else the place was seen free after this
        row, column = row[current], column[current]
        self._occupied_at[row, column] = np.maximum(self._occupied_at[row, column], stamp_s)
        self._blind_at[evidence.blind] = np.maximum(self._blind_at[evidence.blind], stamp_s)

    def _read(self, evidence: Evidence, stamp_s: float, position: np.ndarray, yaw: float) -> Evidence:
        spec, oldest = self._spec, stamp_s - self.decay_s
        (low_column, low_row), (high_column, high_row) = self._covered(position, yaw)
        window = (slice(low_row, high_row), slice(low_column, high_column))
        first = _turned(np.array([spec.x_min, spec.y_min]) + spec.resolution / 2, yaw) + position
        column_0, row_0 = first / spec.resolution - self._corner - [low_column, low_row]
        turned = Turned(float(np.cos(yaw)), float(np.sin(yaw)), float(column_0), float(row_0))
        reading = Reading(turned, (spec.rows, spec.cols), (high_row - low_row, high_column - low_column))
        (stale,) = reading.touches((self._free_at[window] < oldest, True))
        there = np.argwhere(self._occupied_at[window] >= oldest)
        centres = (there[:, ::-1] + self._corner + [low_column, low_row] + 0.5) * spec.resolution - position
        cells = spec.cell_of(_turned(centres, -yaw))
        occupied = evidence.occupied.copy()
        occupied.reshape(-1)[cells[cells >= 0]] = True
        occupied &= ~evidence.free | evidence.occupied
        free = (evidence.free | ~(stale | evidence.denied)) & ~occupied
        blind = self._blind_at >= oldest
        bridged = cv2.dilate(blind.view(np.uint8), _BRIDGE) > 0
        return Evidence(free, evidence.denied, occupied, blind | (bridged & ~evidence.denied & ~occupied))

    def _covered(self, position: np.ndarray, yaw: float) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last (column, row) of the window that the grid may reach."""
        spec = self._spec
        corners = _turned(spec.lattice()[[0, 0, -1, -1], [0, -1, 0, -1]], yaw) + position
        cells = np.floor(corners / spec.resolution).astype(np.int64) - self._corner
        return np.maximum(cells.min(axis=0) - 1, 0), np.minimum(cells.max(axis=0) + 2, self._side)

    def _places(self, cells: np.ndarray, position: np.ndarray, yaw: float) -> tuple[np.ndarray, np.ndarray]:
        """Column and row in the window of the centres of grid cells."""
        spec = self._spec
        row, column = np.divmod(cells, spec.cols)
        centres = np.column_stack([column, row]) + 0.5
        centres = centres * spec.resolution + [spec.x_min, spec.y_min]
        place = np.floor((_turned(centres, yaw) + position) / spec.resolution).astype(np.int64) - self._corner
        return place[:, 0], place[:, 1]


def _checked(stamp_s: float, T_odom_vehicle: np.ndarray) -> np.ndarray:
    pose = np.asarray(T_odom_vehicle, np.float64)
    if not (
        pose.shape == (4, 4)
        and np.isfinite(pose).all()
        and np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-3)
        and np.allclose(pose[3], [0, 0, 0, 1], atol=1e-9)
        and np.abs(pose[:3, 3]).max() <= _FARTHEST_M
    ):
        raise InputError("T_odom_vehicle is no rigid 4x4 transform in metres: give the pose that odometry publishes")
    if not np.isfinite(stamp_s):
        raise InputError(f"stamp_s is {stamp_s}: give the time of the views in seconds")
    return pose


def _turned(points: np.ndarray, yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


def _shift(times: np.ndarray, columns: int, rows: int) -> None:
    """Move the contents so that the cell at (rows, columns) comes to (0, 0); what comes in was never seen."""
    size = len(times)
    moved = np.full_like(times, _NEVER)
    if abs(columns) < size and abs(rows) < size:
        source = (slice(max(rows, 0), size + min(rows, 0)), slice(max(columns, 0), size + min(columns, 0)))
        target = (slice(max(-rows, 0), size + min(-rows, 0)), slice(max(-columns, 0), size + min(-columns, 0)))
        moved[target] = times[source]
    times[:] = moved
