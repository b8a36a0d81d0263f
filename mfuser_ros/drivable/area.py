"""The drivable area: several views fused on one grid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mfuser_ros.drivable.boundary import Sweep
from mfuser_ros.drivable.contacts import STANDS_SURELY
from mfuser_ros.drivable.grid import FREE_CELL, OCCUPIED_CELL, UNKNOWN_CELL, GridSpec
from mfuser_ros.drivable.memory import Evidence, Memory
from mfuser_ros.drivable.view import Meaning, View, ViewPlan, plan_view
from mfuser_ros.errors import ConfigurationError, InputError
from mfuser_ros.vocabulary import Vocabulary

GROUND_ROLES = ("drivable", "walkable", "ground")
STANDING_ROLES = ("static", "dynamic")

_PLANS_KEPT = 16
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, eq=False)
class DrivableResult:
    """The ground round the vehicle at one moment, metres in the vehicle frame."""

    occupancy: np.ndarray  # (rows, cols) int8, row is y and column is x: -1 unknown, 0 free, 100 occupied
    contacts: np.ndarray  # (N, 4) float32 x, y, z = 0, class id of what is touched; one per bearing and camera
    boundary: np.ndarray  # (M, 2) float32 x, y: the free area's outline, counter-clockwise; (0, 2) if there is none


class DrivableArea:
    """Finds the ground that is free to drive on.

    Free means seen, on the ground, of a free role, confident, and connected to the vehicle; occupied is where the
    first thing that stands touches the ground along a bearing; all else is unknown. A cell is never free on the
    evidence of a pixel that may be something else.

    Args:
        spec: the grid.
        vocabulary: what the ids in the masks mean.
        free_roles: roles that count as free, out of drivable, walkable, ground.
        min_confidence: a pixel with confidence / 255 below it is unknown.
        max_pixel_length: ground metres along the ray that one pixel may cover; beyond it a cell is unknown.
        decay_s: how long what was seen is remembered, 0 to 60 seconds; 0 remembers nothing.

    With a decay, ground that no view of this moment looks at (under the vehicle, beside it, or in front of a camera
    whose picture did not come) keeps what was last seen there for `decay_s`, moved by the odometry. Where a view looks,
    it alone decides: what it does not show to be free is not, and what it hides is unknown. What stood somewhere stays
    occupied for `decay_s` unless the place is seen to be free.

    Raises:
        ConfigurationError: a role that is not ground, a number out of its range, or a grid too large to remember.
    """

    def __init__(
        self,
        spec: GridSpec,
        vocabulary: Vocabulary,
        free_roles: Sequence[str] = ("drivable",),
        min_confidence: float = 0.5,
        *,
        max_pixel_length: float = 1.0,
        decay_s: float = 0.0,
    ) -> None:
        wrong = [role for role in free_roles if role not in GROUND_ROLES]
        if wrong or isinstance(free_roles, str):
            raise ConfigurationError(f"free roles {free_roles!r}: choose from {', '.join(GROUND_ROLES)}")
        if not 0 <= min_confidence <= 1:
            raise ConfigurationError(f"min_confidence {min_confidence:g} must be from 0 to 1")
        if not 0 < max_pixel_length < math.inf:
            raise ConfigurationError(f"max_pixel_length {max_pixel_length:g} must be a positive number of metres")
        self.spec = spec
        self.max_pixel_length = float(max_pixel_length)
        self._meaning = _meaning(vocabulary, free_roles, min_confidence)
        self._sweep = Sweep.plan(spec)
        self._plans: OrderedDict[tuple[object, ...], ViewPlan | None] = OrderedDict()
        self._memory = None if decay_s == 0 else Memory(spec, decay_s)

    def update(
        self, views: Sequence[View], *, stamp_s: float | None = None, T_odom_vehicle: np.ndarray | None = None
    ) -> DrivableResult:
        """The drivable area in these views, which were taken at one moment. Without a decay nothing is kept but plans.

        The first call with a camera at a pose plans (a fraction of a second), later ones look up. Where two views
        look at one cell, occupied wins over free, and free over unknown.

        Args:
            views: any number.
            stamp_s: when they were taken, in seconds; needed with a decay. Views may come late: older ones never
                replace what is newer. A step back of more than the decay, or a step of the vehicle that no vehicle
                makes (70 m/s, 3 rad/s), starts afresh.
            T_odom_vehicle: (4, 4) pose of the vehicle at that time in a frame fixed to the ground, metres. None where
                there is none, and a vehicle tilted by more than 20 degrees: these views are used alone and are not
                remembered, what is remembered waits and grows older.

        Raises:
            InputError: a mask or confidence of another size or type than the camera's picture; no time with a decay;
                a pose that is no rigid transform.
            CalibrationError: a camera pose that cannot be used.
        """
        evidence, contacts = self._see(views)
        if self._memory is not None:
            if stamp_s is None:
                raise InputError("stamp_s is missing: with decay_s, give the time of the views in seconds")
            if T_odom_vehicle is not None:
                evidence = self._memory.remember(evidence, stamp_s, T_odom_vehicle)
        occupancy = np.full(evidence.free.shape, UNKNOWN_CELL, np.int8)
        occupancy[_connected(evidence.free.view(np.uint8), evidence.blind)] = FREE_CELL
        occupancy[evidence.occupied] = OCCUPIED_CELL
        return DrivableResult(occupancy, contacts, self._sweep.outline(occupancy))

    def forget(self) -> None:
        """Drop what is remembered: time has jumped, or the vehicle was moved while nobody looked."""
        if self._memory is not None:
            self._memory.forget()

    def _see(self, views: Sequence[View]) -> tuple[Evidence, np.ndarray]:
        """What the views show, and their contacts (N, 4)."""
        shape = (self.spec.rows, self.spec.cols)
        free, denied, occupied, blind = (np.zeros(shape, bool) for _ in range(4))
        contacts: list[np.ndarray] = [np.zeros((0, 4), np.float32)]
        for view in views:
            view.check()
            plan = self._plan(view)
            if plan is None:
                continue
            sight = plan.look(view.mask, view.confidence, self._meaning)
            free.reshape(-1)[sight.free] = True
            denied.reshape(-1)[sight.denied] = True
            occupied.reshape(-1)[sight.contacts.cells] = True
            blind |= plan.blind
            contacts.append(sight.contacts.points)
        free &= ~occupied
        denied &= ~free
        return Evidence(free, denied, occupied, blind), np.concatenate(contacts)

    def _plan(self, view: View) -> ViewPlan | None:
        pose = np.asarray(view.T_vehicle_camera, np.float64)
        key = (*view.camera.key, pose.shape, pose.tobytes())
        if key not in self._plans:
            self._plans[key] = plan_view(view.camera, pose, self.spec, self.max_pixel_length)
            if len(self._plans) > _PLANS_KEPT:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]


def _meaning(vocabulary: Vocabulary, free_roles: Sequence[str], min_confidence: float) -> Meaning:
    not_free, stands = np.ones(256, np.uint8), np.zeros(256, np.uint8)
    not_free[list(vocabulary.ids_with_role(free_roles))] = 0
    stands[list(vocabulary.ids_with_role(STANDING_ROLES))] = STANDS_SURELY
    enough = np.flatnonzero(np.arange(256) / 255 >= min_confidence)[0]
    return Meaning(not_free, stands, int(enough) - 1)


def _connected(free: np.ndarray, blind: np.ndarray) -> np.ndarray:
    """(rows, cols) bool: free cells that a path through sides of free cells joins to the blind zone."""
    _, labels = cv2.connectedComponents(free, connectivity=4, ltype=cv2.CV_32S)
    touching = cv2.dilate(blind.astype(np.uint8), _CROSS) > 0
    reached = np.zeros(int(labels.max()) + 1, bool)
    reached[labels[touching]] = True
    reached[0] = False  # label 0 is what is not free
    return np.asarray(reached[labels])
