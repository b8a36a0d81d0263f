"""What the parameters say, as one immutable value that has been checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.calibration import check_pose, pose_matrix
from mfuser_ros.node.parameters import RESERVED_NAMES, rows
from mfuser_ros.node.roi import Region


@dataclass(frozen=True)
class CameraSettings:
    """Parameters `<cam>.…` of one camera."""

    name: str
    image_topic: str
    info_topic: str  # empty: beside the image topic
    transport: str
    frame_id: str
    pose: tuple[float, ...] | None
    roi: Region | None
    output_size: tuple[int, int] | None  # height, width; None: as the picture
    rectified: bool


@dataclass(frozen=True)
class Settings:
    """Every parameter of the node, with an underscore for the dot of its name. Lengths in metres, times in seconds."""

    cameras: tuple[CameraSettings, ...]
    model: str
    precision: str
    vocabulary: str
    device: str
    input_size: tuple[int, int] | None  # height, width; None: the model's own
    input_reliability: str
    pose_source: str
    odometry_topic: str  # empty: none
    autoware_mask: bool
    autostart: bool
    max_rate: float
    max_age: float
    threshold: float | None  # None: the model's own
    temporal_filter: bool
    overlay_alpha: float
    overlay_rate: float
    free_roles: tuple[str, ...]
    grid_enabled: bool
    grid_frame: str
    grid_resolution: float
    grid_x_min: float
    grid_x_max: float
    grid_y_min: float
    grid_y_max: float
    grid_min_confidence: float
    grid_transient_local: bool
    grid_decay: float  # 0: no memory
    ground_z: float
    ground_max_range: float
    contacts_height: float
    tf_timeout: float
    diagnostics_warn_latency: float
    diagnostics_error_latency: float
    diagnostics_stale_after: float
    diagnostics_camera_trouble_after: float
    diagnostics_max_allowed_processing_time_ms: float
    diagnostics_max_acceptable_consecutive_delay_ms: float
    diagnostics_pose_check_period: float
    diagnostics_pose_check_max_pitch_drift: float  # degrees
    diagnostics_pose_check_max_height_drift: float
    diagnostics_pose_check_lane_width: float  # 0: not known


def camera_names(value: object) -> tuple[str, ...]:
    """The names in the value of the parameter `cameras`.

    Raises:
        ConfigurationError: no list of 1 to 8 different names that can stand in a topic.
    """
    (row,) = (row for row in rows(()) if row.name == "cameras")
    names = row.checked(value)
    assert isinstance(names, tuple)
    cameras = tuple(map(str, names))
    for name in cameras:
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or "__" in name or name in RESERVED_NAMES:
            raise ConfigurationError(
                f"cameras holds '{name}': a name has letters, digits and single underscores, begins with a letter, "
                f"and is none of {', '.join(RESERVED_NAMES)}"
            )
    if len(set(cameras)) != len(cameras):
        raise ConfigurationError(f"cameras holds a name twice: {', '.join(cameras)}")
    return cameras


def settings(values: Mapping[str, object]) -> Settings:
    """Check the values of all parameters, each by its row and then together.

    Args:
        values: by parameter name; one that is missing or None takes its default.

    Raises:
        ConfigurationError: the first value that cannot work, by name.
    """
    names = camera_names(values.get("cameras"))
    checked: dict[str, Any] = {row.name: row.checked(values.get(row.name)) for row in rows(names)}
    fields = {
        name.replace(".", "_"): value
        for name, value in checked.items()
        if name != "cameras" and name.partition(".")[0] not in names
    }
    fields["threshold"] = _threshold(checked["threshold"])
    fields["input_size"] = _size("input_size", checked["input_size"])
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", checked["device"]):
        raise ConfigurationError(f"device is '{checked['device']}': choose auto, cpu, cuda or cuda:N")
    if not checked["grid.frame"]:
        raise ConfigurationError("grid.frame is empty: name the frame of the vehicle, such as base_link")
    if checked["grid.decay"] > 0 and not checked["odometry_topic"]:
        raise ConfigurationError(
            "grid.decay is set and odometry_topic is empty: name the topic, or set grid.decay to 0"
        )
    cameras = tuple(_camera(name, checked) for name in names)
    return Settings(cameras=cameras, **fields)


def _camera(name: str, checked: Mapping[str, Any]) -> CameraSettings:
    of_camera = {key[len(name) + 1 :]: value for key, value in checked.items() if key.startswith(f"{name}.")}
    of_camera["roi"] = _region(f"{name}.roi", of_camera["roi"])
    of_camera["output_size"] = _size(f"{name}.output_size", of_camera["output_size"])
    camera = CameraSettings(name=name, **of_camera)
    if not camera.image_topic:
        raise ConfigurationError(f"{name}.image_topic is empty: name the topic of the camera's pictures")
    if camera.pose is not None:
        check_pose(pose_matrix(camera.pose), ground_z=checked["ground.z"], name=f"{name}.pose")
    return camera


def _region(name: str, value: tuple[int, ...] | None) -> Region | None:
    if value is None:
        return None
    region = Region(*value)
    if min(region.width, region.height) < 64:
        raise ConfigurationError(f"{name} is {list(value)}: give x y width height, both sides 64 or more")
    return region


def _threshold(value: float) -> float | None:
    if value == -1:
        return None
    if value < 0:
        raise ConfigurationError(f"threshold is {value:g}: give 0 to 1, or -1 for the model's own")
    return value


def _size(name: str, value: tuple[int, int]) -> tuple[int, int] | None:
    if value == (0, 0):
        return None
    if min(value) < 64:
        raise ConfigurationError(f"{name} is {list(value)}: give two sides of 64 or more, or [0, 0]")
    return value
