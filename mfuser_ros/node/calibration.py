"""From a CameraInfo message and pose parameters to what the drivable area needs: intrinsics and a pose."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mfuser_ros.errors import CalibrationError, ConfigurationError

MIN_ANGLE_FROM_UP = math.radians(5.0)
_COEFFICIENTS = {"plumb_bob": (5, 4), "rational_polynomial": (8,), "equidistant": (4,)}


class Intrinsics(NamedTuple):
    """What a CameraInfo says of the pictures that come with it."""

    width: int  # of the published picture, pixels
    height: int
    K: np.ndarray  # (3, 3) of the published picture, pixels
    D: tuple[float, ...]  # OpenCV's order; empty for none
    model: str


def intrinsics(info: Any, *, rectified: bool) -> Intrinsics:  # Any: rclpy's and rosbags' CameraInfo
    """Intrinsics of the published picture, with binning and region of interest worked in.

    A binned pixel is taken as the mean of its members, so pixel centres, which lie at whole coordinates, move by half
    a pixel less than plain division says.

    Args:
        info: has the fields of sensor_msgs/CameraInfo.
        rectified: the picture is undistorted already: P holds, and D does not.

    Raises:
        CalibrationError: the message is not that of a calibrated camera; the text names the field.

    Source: the comments in sensor_msgs/msg/CameraInfo.msg.
    """
    source = "p" if rectified else "k"
    values = np.asarray(info.p if rectified else info.k, np.float64)
    columns = 4 if rectified else 3
    if values.size != 3 * columns:
        raise CalibrationError(f"camera_info.{source} has {values.size} numbers: publish {3 * columns}")
    K = values.reshape(3, columns)[:, :3].copy()
    if not np.isfinite(K).all():
        raise CalibrationError(f"camera_info.{source} holds a number that is not finite: calibrate the camera")
    if K[0, 0] == 0:
        raise CalibrationError(f"camera_info.{source}[0] is 0, the camera is not calibrated: calibrate it")
    if K[0, 0] < 0 or K[1, 1] <= 0:
        raise CalibrationError(
            f"camera_info.{source} has focal lengths {K[0, 0]:g} and {K[1, 1]:g}: they must be greater than 0"
        )
    model, D = ("plumb_bob", ()) if rectified else _lens(info)
    width, height = _published_size(info)
    _to_published(K, info)
    return Intrinsics(width, height, K, D, model)


def resized_info(info: Any, height: int, width: int) -> Any:  # Any: rclpy's or rosbags' CameraInfo
    """A copy of a valid CameraInfo for its picture stretched to `height` x `width`, binning and region worked in."""
    before_width, before_height = _published_size(info)
    K, P = np.array(info.k, np.float64).reshape(3, 3), np.array(info.p, np.float64).reshape(3, 4)
    for matrix in (K, P):
        _to_published(matrix, info)
        for row, scale in enumerate((width / before_width, height / before_height)):
            # pixel centres lie at whole coordinates
            matrix[row] *= scale
            matrix[row, 2] += (scale - 1) / 2
    resized = copy.deepcopy(info)
    resized.height, resized.width = int(height), int(width)
    resized.k, resized.p = K.reshape(-1).tolist(), P.reshape(-1).tolist()
    resized.binning_x = resized.binning_y = 0
    resized.roi.x_offset = resized.roi.y_offset = resized.roi.width = resized.roi.height = 0
    return resized


def _lens(info: Any) -> tuple[str, tuple[float, ...]]:
    model, D = str(info.distortion_model), tuple(float(value) for value in info.d)
    if not all(math.isfinite(value) for value in D):
        raise CalibrationError("camera_info.d holds a number that is not finite: calibrate the camera")
    if not D and not model:
        return "plumb_bob", ()
    if model not in _COEFFICIENTS:
        raise CalibrationError(
            f"camera_info.distortion_model '{model}' is unknown: publish one of {', '.join(_COEFFICIENTS)}"
        )
    if D and len(D) not in _COEFFICIENTS[model]:
        raise CalibrationError(f"camera_info.d has {len(D)} numbers, {model} takes {_COEFFICIENTS[model][0]}")
    return model, D


def _published_size(info: Any) -> tuple[int, int]:
    """Width and height of the published picture."""
    left, top = int(info.roi.x_offset), int(info.roi.y_offset)
    # a region of 0 x 0 stands for the whole picture
    width, height = int(info.roi.width) or int(info.width), int(info.roi.height) or int(info.height)
    if width <= 0 or height <= 0:
        raise CalibrationError(f"camera_info has the size {info.width}x{info.height}: publish that of the picture")
    if left + width > info.width or top + height > info.height:
        raise CalibrationError(
            f"camera_info.roi {width}x{height} at {left},{top} leaves the picture of {info.width}x{info.height}"
        )
    return width // max(1, int(info.binning_x)), height // max(1, int(info.binning_y))


def _to_published(matrix: np.ndarray, info: Any) -> None:
    """Move and scale K or P, in place, from the whole sensor to the published picture."""
    offsets = (int(info.roi.x_offset), int(info.roi.y_offset))
    binnings = (max(1, int(info.binning_x)), max(1, int(info.binning_y)))
    for row, (offset, binning) in enumerate(zip(offsets, binnings, strict=True)):
        matrix[row, 2] = (matrix[row, 2] - offset + 0.5) / binning - 0.5
        matrix[row, [0, 1, *range(3, matrix.shape[1])]] /= binning


def pose_matrix(pose: Sequence[float]) -> np.ndarray:
    """(4, 4) transform that maps the optical frame to the grid's frame, metres.

    Args:
        pose: x, y, z in metres, then roll, pitch, yaw in radians about fixed axes: R = Rz(yaw) Ry(pitch) Rx(roll).

    Source: the convention of URDF (REP 103).
    """
    x, y, z, roll, pitch, yaw = pose
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(angle), math.sin(angle)) for angle in (roll, pitch, yaw))
    T = np.eye(4)
    T[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    T[:3, 3] = x, y, z
    return T


def pose_parameter(T_vehicle_camera: np.ndarray) -> list[float]:
    """A pose as the node's parameter `<cam>.pose`: the inverse of `pose_matrix`.

    Args:
        T_vehicle_camera: (4, 4) rigid transform, camera optical frame to vehicle frame, metres.

    Returns:
        x, y, z in metres and roll, pitch, yaw in radians about fixed axes: R = Rz(yaw) Ry(pitch) Rx(roll).
    """
    R = T_vehicle_camera[:3, :3]
    pitch = math.atan2(-R[2, 0], math.hypot(R[0, 0], R[1, 0]))
    roll = math.atan2(R[2, 1], R[2, 2])
    yaw = math.atan2(R[1, 0], R[0, 0])
    return [float(value) for value in (*T_vehicle_camera[:3, 3], roll, pitch, yaw)]


def quaternion_matrix(x: float, y: float, z: float, w: float) -> np.ndarray:
    """(3, 3) rotation of a quaternion, which need not have the length 1.

    Raises:
        ConfigurationError: it has the length 0 or holds a number that is not finite.
    """
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if not 0 < length < math.inf:
        raise ConfigurationError(f"rotation {[x, y, z, w]} is none: publish a quaternion of length 1")
    x, y, z, w = (value / length for value in (x, y, z, w))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def check_pose(T: np.ndarray, *, ground_z: float, name: str) -> None:
    """Refuse a pose from which no ground can be seen.

    Args:
        T: (4, 4) optical frame to the grid's frame, metres.
        ground_z: height of the ground in that frame, metres.
        name: of the parameter, for the text.

    Raises:
        ConfigurationError: the camera is below the ground or looks within 5 degrees of straight up.
    """
    if T[2, 3] <= ground_z:
        raise ConfigurationError(
            f"{name} puts the camera at z = {T[2, 3]:g} m and the ground is at {ground_z:g} m: give the camera's height"
        )
    if T[2, 2] > math.cos(MIN_ANGLE_FROM_UP):
        raise ConfigurationError(
            f"{name} points the optical axis straight up: a forward camera has roll -1.5708 and yaw -1.5708 "
            "(optical frame: z forward, x right, y down)"
        )
