"""Asks the road now and then whether a camera still looks as its pose says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.drift import RoadWatch
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.stamps import SECOND_NS
from mfuser_ros.vocabulary import Vocabulary

KIND = "pose_drift"
LOOKS = 8  # from one verdict to the next
FEWEST_FRAMES = 5  # with lines on both sides, for a verdict
SAME_M, SAME_RAD = 0.01, np.radians(0.1)


class PoseLimits(NamedTuple):
    """What the parameters `diagnostics.pose_check.…` say."""

    period_s: float  # between two looks; 0: none
    pitch_deg: float
    height_m: float
    lane_width_m: float  # 0: not known, so the height is not checked


class PoseCheck:
    """Looks at the road now and then, and after some looks gives a verdict on the pose of one camera.

    A look at 1280x720 takes some 40 ms and a verdict 100 ms, so a thread of its own asks (PoseWatch). A pose that moves
    (a camera on a gimbal) starts the looks afresh and gets no verdict.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._watch: RoadWatch | None = None
        self._of: tuple[CameraModel, np.ndarray, float] | None = None
        self._next_ns = 0

    def is_due(self, now_ns: int, limits: PoseLimits) -> bool:
        """Whether it is time for a look; `now_ns` of a steady clock."""
        return limits.period_s > 0 and now_ns >= self._next_ns

    def look(
        self,
        mask: np.ndarray,
        picture: np.ndarray,
        camera: CameraModel,
        T_ground_camera: np.ndarray,
        now_ns: int,
        limits: PoseLimits,
    ) -> tuple[bool, Fault | None]:
        """Take one look; after some of them, whether there is a verdict, and the fault if the pose has drifted.

        Args:
            mask: (H, W) uint8 class ids.
            picture: (H, W, 3) uint8 RGB of the same size.
            camera: the lens of that size.
            T_ground_camera: (4, 4) the pose in use; the ground is z = 0.
            now_ns: a steady clock.
            limits: of the parameters.
        """
        self._next_ns = now_ns + int(limits.period_s * SECOND_NS)
        watch = self._watch_for(camera, T_ground_camera, limits)
        watch.look(mask, picture)
        if watch.looks < LOOKS:
            return False, None
        drift = watch.drift(
            pitch_bound_rad=float(np.radians(limits.pitch_deg)),
            height_bound_m=limits.height_m,
            fewest_frames=FEWEST_FRAMES,
        )
        watch.forget()
        if drift is None:  # the road does not tell: what was told before stands
            return False, None
        if not drift.beyond:
            return True, None
        return True, Fault(Level.WARN, KIND, f"the road says {drift.text}: check the mount, or run mfuser calibrate")

    def _watch_for(self, camera: CameraModel, pose: np.ndarray, limits: PoseLimits) -> RoadWatch:
        of = (camera, pose, limits.lane_width_m)
        if self._watch is None or self._of is None or not _alike(of, self._of):
            self._watch = RoadWatch(
                camera, pose, self._vocabulary, lane_width_m=limits.lane_width_m or None, looks=LOOKS
            )
            self._of = of
        return self._watch


def _alike(one: tuple[CameraModel, np.ndarray, float], other: tuple[CameraModel, np.ndarray, float]) -> bool:
    turn = np.arccos(np.clip((np.trace(one[1][:3, :3].T @ other[1][:3, :3]) - 1) / 2, -1, 1))
    moved = np.linalg.norm(one[1][:3, 3] - other[1][:3, 3])
    return one[0] == other[0] and one[2] == other[2] and bool(turn < SAME_RAD and moved < SAME_M)
