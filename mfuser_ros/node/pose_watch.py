"""Looks at the road in a thread of its own, so that no mask and no grid waits for the check of a pose."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mfuser_ros.drivable import View
from mfuser_ros.node.camera import Camera
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.lines import one_line
from mfuser_ros.node.pose_check import KIND, PoseCheck, PoseLimits
from mfuser_ros.node.settings import Settings
from mfuser_ros.node.worker import Worker
from mfuser_ros.vocabulary import Vocabulary


class _Look(NamedTuple):
    """A picture that waits for the check."""

    camera: Camera
    check: PoseCheck
    picture: np.ndarray  # uint8 RGB (H, W, 3), the part that is looked at
    view: View
    limits: PoseLimits


class PoseWatch:
    """Checks the poses of all cameras, one after the other; of each the newest picture alone waits.

    Args:
        vocabulary: what the ids in the masks mean.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._checks: dict[str, PoseCheck] = {}
        self._worker: Worker[_Look] | None = None

    def start(self, cameras: Sequence[str]) -> None:
        """Begin, with nothing known of these cameras."""
        self._checks = {}
        self._worker = Worker(cameras, self._look, lambda: 1, name="mfuser-pose-check")
        self._worker.start()

    def stop(self, timeout: float | None = None) -> bool:
        """End after the look in work; returns whether the thread has ended in time."""
        worker, self._worker = self._worker, None
        return worker is None or worker.stop(timeout)

    def reset(self) -> None:
        """Time has jumped: throw away what waits and what was seen."""
        if self._worker is not None:
            self._worker.discard()
        self._checks = {}

    def offer(self, camera: Camera, picture: np.ndarray, view: View, settings: Settings) -> None:
        """Leave a picture for a look, if one is due; returns at once.

        Args:
            camera: whose picture it is.
            picture: uint8 RGB (H, W, 3), the part that is looked at; it must not be written to any more.
            view: of the same part.
            settings: of the node.
        """
        check = self._checks.setdefault(camera.settings.name, PoseCheck(self._vocabulary))
        limits = PoseLimits(
            settings.diagnostics_pose_check_period,
            settings.diagnostics_pose_check_max_pitch_drift,
            settings.diagnostics_pose_check_max_height_drift,
            settings.diagnostics_pose_check_lane_width,
        )
        worker = self._worker
        if worker is not None and check.is_due(time.monotonic_ns(), limits):
            worker.put(camera.settings.name, _Look(camera, check, picture, view, limits))

    def _look(self, looks: Mapping[str, _Look]) -> None:
        """Must not raise: the thread has to live on."""
        for look in looks.values():
            mask, lens, pose = look.view.mask, look.view.camera, look.view.T_vehicle_camera
            try:
                told, fault = look.check.look(mask, look.picture, lens, pose, time.monotonic_ns(), look.limits)
            except Exception as error:  # the masks are as good as before
                told, fault = True, Fault(Level.WARN, KIND, f"the pose could not be checked: {one_line(error)}")
            if fault is not None:
                look.camera.tell_condition(fault)
            elif told:
                look.camera.health.clear_condition(KIND)
