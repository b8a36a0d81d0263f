"""Cameras of three lens models, each with OpenCV's own projection as the second opinion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from road_scene import lens_rays, optical_pose

from mfuser_ros.drivable import CameraModel


@dataclass(frozen=True, eq=False)
class WitnessCamera:
    """A lens and a pose."""

    width: int
    height: int
    focal: float
    D: tuple[float, ...]
    model: str
    pose: np.ndarray

    @cached_property
    def K(self) -> np.ndarray:  # noqa: N802 (the field's letter)
        return np.array(
            [[self.focal, 0, self.width / 2 - 3.2], [0, self.focal * 1.01, self.height / 2 + 2.6], [0, 0, 1]]
        )

    @cached_property
    def camera(self) -> CameraModel:
        return CameraModel(self.width, self.height, self.K, self.D, self.model)

    @cached_property
    def rays(self) -> np.ndarray:
        """(H, W, 3) directions through the pixel centres, by OpenCV."""
        return lens_rays(self.width, self.height, self.K, self.D, fisheye=self.model == "equidistant")

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels of points (N, 3) in the optical frame, by OpenCV; NaN behind the camera."""
        pixels = np.full((len(points), 2), np.nan)
        ahead = points[:, 2] > 1e-6
        if ahead.any():
            project = cv2.fisheye.projectPoints if self.model == "equidistant" else cv2.projectPoints
            found, _ = project(points[ahead][:, None], np.zeros(3), np.zeros(3), self.K, np.array(self.D))
            pixels[ahead] = found.reshape(-1, 2)
        return pixels


FISHEYE = (-0.02, 0.004, -0.001, 0.0001)
BARREL = (-0.25775, 0.04533, -0.000725, 0.000174, -0.11452)
RATIONAL = (0.3, 0.02, 1e-3, -5e-4, 0.002, 0.6, 0.12, 0.01)

WITNESSES = {
    "pinhole": WitnessCamera(640, 360, 500.0, (), "plumb_bob", optical_pose(1.5, 0.0, 1.5, pitch_deg=5)),
    "plumb_bob": WitnessCamera(
        960, 540, 870.0, BARREL, "plumb_bob", optical_pose(1.5, 0.3, 1.3, pitch_deg=3, yaw_deg=4, roll_deg=3)
    ),
    "rational_polynomial": WitnessCamera(
        800, 450, 560.0, RATIONAL, "rational_polynomial", optical_pose(1.5, -0.2, 1.8, pitch_deg=9, yaw_deg=-6)
    ),
    "equidistant": WitnessCamera(640, 480, 220.0, FISHEYE, "equidistant", optical_pose(2.0, 0.0, 1.2, pitch_deg=20)),
}
