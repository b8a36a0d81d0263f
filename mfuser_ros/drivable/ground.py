"""A camera at its place on the vehicle, looking at the ground plane z = 0."""

from __future__ import annotations

import numpy as np

from mfuser_ros.drivable.camera import CameraModel
from mfuser_ros.errors import CalibrationError

_STRAIGHT_UP_DEG = 5.0
_STEP_M = 1e-3  # for slopes by differences


class MountedCamera:
    """A camera model with a pose over the ground.

    Args:
        camera: the lens.
        T_vehicle_camera: (4, 4) rigid transform, camera optical frame to vehicle frame, metres; ground is z = 0.

    Raises:
        CalibrationError: the matrix is no rigid transform, the camera is not above the ground, or it looks within
            5 degrees of straight up.
    """

    def __init__(self, camera: CameraModel, T_vehicle_camera: np.ndarray) -> None:
        pose = np.array(T_vehicle_camera, np.float64)
        if pose.shape != (4, 4):
            raise CalibrationError(f"camera pose has shape {pose.shape}: give a 4x4 matrix")
        if not np.isfinite(pose).all():
            raise CalibrationError(
                "camera pose holds a number that is not finite: give a rigid 4x4 transform in metres"
            )
        rotation = pose[:3, :3]
        rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) and np.linalg.det(rotation) > 0
        if not rigid or not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-9):
            raise CalibrationError(
                "camera pose is no rotation with a translation: give a rigid 4x4 transform in metres"
            )
        if pose[2, 3] <= 0:
            raise CalibrationError(
                f"camera pose is {pose[2, 3]:g} m above the ground: the camera must be above z = 0 of the vehicle frame"
            )
        if rotation[2, 2] > np.cos(np.radians(_STRAIGHT_UP_DEG)):
            raise CalibrationError(
                "camera looks straight up (within 5 degrees): give the pose of the optical frame (z forward), not of "
                "the camera body"
            )
        self.camera = camera
        self.pose = pose
        self.foot = pose[:2, 3]
        self.height_m = float(pose[2, 3])

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of ground points (..., 2) in the vehicle frame; NaN where the lens does not image them."""
        offset = np.asarray(points, np.float64) - self.foot
        R = self.pose[:3, :3]
        return self.camera.project(offset @ R[:2] - self.height_m * R[2])

    def pixel_length(self, points: np.ndarray) -> np.ndarray:
        """(...) ground metres that one pixel covers along the ray at ground points (..., 2); NaN where not imaged."""
        offset = np.asarray(points, np.float64) - self.foot
        distance = np.linalg.norm(offset, axis=-1, keepdims=True)
        outward = np.where(distance > 0, offset / np.maximum(distance, 1e-12), [1.0, 0.0])
        shift = self.project(points + _STEP_M * outward) - self.project(points)
        with np.errstate(divide="ignore"):
            return np.asarray(_STEP_M / np.linalg.norm(shift, axis=-1))
