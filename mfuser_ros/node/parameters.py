"""The node's parameters, each written down once: declaration, YAML file and table come from these rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mfuser_ros.errors import ConfigurationError

Type = Literal["bool", "double", "string", "string[]", "double[]", "int[]"]
Value = bool | float | str | tuple[str, ...] | tuple[float, ...] | tuple[int, ...] | None

CAMERA = "<cam>"
"""Stands for the name of a camera in the name and default of a row."""

RESERVED_NAMES = (
    "debug", "diagnostics", "drivable_area", "grid", "ground", "processing_time_status", "qos_overrides", "temporal"
)  # fmt: skip
"""Names that no camera may have, because topics or parameters of the node begin with them."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: as in a parameter file; `<cam>` stands for each camera.
        type: ROS type. A whole number is taken where a double is asked for.
        default: None where the parameter is optional and unset.
        description: one line, as shown by `ros2 param describe`.
        range: smallest and largest number, both allowed.
        choices: the only texts allowed.
        length: smallest and largest number of elements of an array.
        run_time: may be changed while the node is active.
    """

    name: str
    type: Type
    default: Value
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    length: tuple[int, int] | None = None
    run_time: bool = False

    def named(self, camera: str) -> Parameter:
        """The row of one camera."""
        default = self.default.replace(CAMERA, camera) if isinstance(self.default, str) else self.default
        return Parameter(
            self.name.replace(CAMERA, camera),
            self.type,
            default,
            self.description,
            self.range,
            self.choices,
            self.length,
            self.run_time,
        )

    def checked(self, value: object) -> Value:
        """The value with its type made right, or the default for None (an unset or empty override).

        Raises:
            ConfigurationError: wrong type, out of range, not a choice, or not that many elements.
        """
        if value is None:
            return self.default
        if self.type.endswith("[]"):
            return self._checked_array(value)
        return self._checked_element(value, self.type)

    def _checked_array(self, value: object) -> Value:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise ConfigurationError(f"{self.name} is {value!r}: give a list ({self.type})")
        elements = tuple(self._checked_element(element, self.type[:-2]) for element in value)
        if self.length is not None and not self.length[0] <= len(elements) <= self.length[1]:
            least, most = self.length
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ConfigurationError(f"{self.name} has {len(elements)} elements: give {wanted}")
        return elements  # type: ignore[return-value]  # all elements have the one type that was checked

    def _checked_element(self, value: object, kind: str) -> bool | int | float | str:
        if kind == "bool" and isinstance(value, bool):
            return value
        if kind == "string" and isinstance(value, str):
            if self.choices and value not in self.choices:
                raise ConfigurationError(f"{self.name} is '{value}': choose one of {', '.join(self.choices)}")
            return value
        if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
            return int(self._in_range(value))
        if kind == "double" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._in_range(float(value))
        raise ConfigurationError(f"{self.name} is {value!r}: give a {kind}")

    def _in_range(self, number: float) -> float:
        if not math.isfinite(number):
            raise ConfigurationError(f"{self.name} is {number}: give a finite number")
        if self.range is not None and not self.range[0] <= number <= self.range[1]:
            raise ConfigurationError(f"{self.name} is {number:g}: give {self.range[0]:g} to {self.range[1]:g}")
        return number


PER_CAMERA = (
    Parameter("<cam>.image_topic", "string", "<cam>/image_raw", "Image topic; without /compressed for that transport."),
    Parameter("<cam>.info_topic", "string", "", "CameraInfo topic; empty: camera_info beside the image topic."),
    Parameter(
        "<cam>.transport",
        "string",
        "raw",
        "raw: sensor_msgs/Image. compressed: sensor_msgs/CompressedImage on <image_topic>/compressed.",
        choices=("raw", "compressed"),
    ),
    Parameter("<cam>.frame_id", "string", "", "Optical frame for pictures whose header names none."),
    Parameter(
        "<cam>.pose",
        "double[]",
        None,
        "Optical frame in grid.frame: x y z (m) roll pitch yaw (rad, fixed axes), each with a point. Unset: from TF.",
        length=(6, 6),
    ),
    Parameter(
        "<cam>.roi",
        "int[]",
        None,
        "Part of the picture that is looked at (px): x y width height; the rest is 255. Unset: the whole picture.",
        range=(0, 8192),
        length=(4, 4),
    ),
    Parameter(
        "<cam>.output_size",
        "int[]",
        (0, 0),
        "Height and width of mask, confidence, overlay and camera_info; [0, 0]: those of the picture.",
        range=(0, 8192),
        length=(2, 2),
    ),
    Parameter("<cam>.rectified", "bool", False, "Pictures are undistorted; assumed for topics named image_rect*."),
)
"""Rows that exist once for each camera."""

NODE = (
    Parameter("cameras", "string[]", ("front",), "Names of the cameras; each has its own topics.", length=(1, 8)),
    Parameter("model", "string", "small", "A name in models/ or the path of a .safetensors file."),
    Parameter(
        "precision",
        "string",
        "auto",
        "Arithmetic of the network; auto is float32 on a CPU.",
        choices=("auto", "float32", "float16", "bfloat16", "float8"),
    ),
    Parameter("vocabulary", "string", "", "Path of a vocabulary YAML; empty: the model's own."),
    Parameter("device", "string", "auto", "auto, cpu, cuda or cuda:N."),
    Parameter(
        "input_size",
        "int[]",
        (0, 0),
        "Height and width that pictures are resized to for the network; [0, 0]: the model's own.",
        range=(0, 8192),
        length=(2, 2),
    ),
    Parameter(
        "input_reliability",
        "string",
        "best_effort",
        "QoS of the image subscription; best_effort connects to every camera driver.",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "pose_source",
        "string",
        "auto",
        "Source of camera poses; auto: TF where tf2_ros is installed and TF knows the frame, else <cam>.pose.",
        choices=("auto", "tf", "parameter"),
    ),
    Parameter("odometry_topic", "string", "", "nav_msgs/Odometry of the vehicle for grid.decay; empty: none."),
    Parameter(
        "autoware_mask",
        "bool",
        False,
        "Publish ~/<cam>/mask_rle: run lengths of Autoware's classes, for its point clouds.",
    ),
    Parameter("autostart", "bool", True, "Configure and activate at start; false: wait for a lifecycle manager."),
    Parameter(
        "max_rate", "double", 0.0, "Most pictures a second and camera (Hz); 0: no limit.", range=(0, 120), run_time=True
    ),
    Parameter(
        "max_age",
        "double",
        0.5,
        "An older picture is dropped (s, node clock minus stamp); 0: no limit.",
        range=(0, 10),
        run_time=True,
    ),
    Parameter(
        "threshold",
        "double",
        -1.0,
        "Probability below which a pixel is unknown (255): 0 to 1, 0: never; -1: the model's own.",
        range=(-1, 1),
        run_time=True,
    ),
    Parameter(
        "temporal.filter",
        "bool",
        False,
        "Hold labels that flicker, for one frame and never against a danger.",
        run_time=True,
    ),
    Parameter("overlay_alpha", "double", 0.5, "Weight of the colours in the overlay.", range=(0, 1), run_time=True),
    Parameter(
        "overlay_rate", "double", 5.0, "Most overlays a second and camera (Hz); 0: none.", range=(0, 60), run_time=True
    ),
    Parameter(
        "free_roles",
        "string[]",
        ("drivable",),
        "Roles of the vocabulary that count as free ground.",
        choices=("drivable", "walkable", "ground"),
        length=(1, 3),
        run_time=True,
    ),
    Parameter("grid.enabled", "bool", True, "Publish the drivable area.", run_time=True),
    Parameter("grid.frame", "string", "base_link", "Frame of the drivable area; x forward, y left, z up."),
    Parameter("grid.resolution", "double", 0.2, "Side of a cell (m).", range=(0.01, 10)),
    Parameter("grid.x_min", "double", -5.0, "Rear edge of the grid (m).", range=(-1000, 1000)),
    Parameter("grid.x_max", "double", 40.0, "Front edge of the grid (m).", range=(-1000, 1000)),
    Parameter("grid.y_min", "double", -15.0, "Right edge of the grid (m).", range=(-1000, 1000)),
    Parameter("grid.y_max", "double", 15.0, "Left edge of the grid (m).", range=(-1000, 1000)),
    Parameter(
        "grid.min_confidence",
        "double",
        0.5,
        "Confidence that a pixel of free ground needs.",
        range=(0, 1),
        run_time=True,
    ),
    Parameter(
        "grid_transient_local",
        "bool",
        True,
        "Latch the grid, as nav2's StaticLayer asks; false: volatile.",
    ),
    Parameter(
        "grid.decay",
        "double",
        0.0,
        "What was seen stays in the grid for this time (s), moved by odometry_topic; 0: one instant only.",
        range=(0, 60),
    ),
    Parameter("ground.z", "double", 0.0, "Height of the ground in grid.frame (m).", range=(-100, 100), run_time=True),
    Parameter(
        "ground.max_range",
        "double",
        40.0,
        "Cells farther from the origin of grid.frame are unknown (m).",
        range=(0, 1000),
        run_time=True,
    ),
    Parameter(
        "contacts_height",
        "double",
        0.3,
        "Height of the contact points above the ground (m).",
        range=(0, 2),
        run_time=True,
    ),
    Parameter(
        "tf_timeout", "double", 0.05, "Longest wait for TF at the picture's stamp (s).", range=(0, 1), run_time=True
    ),
    Parameter(
        "diagnostics.warn_latency",
        "double",
        0.3,
        "Median latency (s, node clock minus stamp) above which the status is WARN.",
        range=(0, 60),
        run_time=True,
    ),
    Parameter(
        "diagnostics.error_latency",
        "double",
        1.0,
        "Median latency (s) above which the status is ERROR.",
        range=(0, 60),
        run_time=True,
    ),
    Parameter(
        "diagnostics.stale_after",
        "double",
        1.0,
        "A camera is silent after this time without a picture (s): ERROR, and one all-unknown grid.",
        range=(0.1, 60),
        run_time=True,
    ),
    Parameter(
        "diagnostics.camera_trouble_after",
        "double",
        2.0,
        "A camera whose pictures are black, frozen, overexposed, blurred or covered for this time (s) is told.",
        range=(0.1, 60),
        run_time=True,
    ),
    Parameter(
        "diagnostics.max_allowed_processing_time_ms",
        "double",
        500.0,
        "Time for one batch (ms) above which processing_time_status is WARN.",
        range=(0, 60_000),
        run_time=True,
    ),
    Parameter(
        "diagnostics.max_acceptable_consecutive_delay_ms",
        "double",
        2000.0,
        "Time for which every batch took too long (ms) above which processing_time_status is ERROR.",
        range=(0, 60_000),
        run_time=True,
    ),
    Parameter(
        "diagnostics.pose_check.period",
        "double",
        5.0,
        "Time between two looks at the road that put a camera's pose to the test (s); 0: none.",
        range=(0, 3600),
        run_time=True,
    ),
    Parameter(
        "diagnostics.pose_check.max_pitch_drift",
        "double",
        1.0,
        "Drift of the pitch (degrees) above which the status of the camera is WARN.",
        range=(0, 45),
        run_time=True,
    ),
    Parameter(
        "diagnostics.pose_check.max_height_drift",
        "double",
        0.1,
        "Drift of the height (m) above which the status of the camera is WARN.",
        range=(0, 10),
        run_time=True,
    ),
    Parameter(
        "diagnostics.pose_check.lane_width",
        "double",
        0.0,
        "Distance between the lines of the own lane (m), which tells the height; 0: not known, pitch only.",
        range=(0, 10),
        run_time=True,
    ),
)
"""Rows that exist once."""


def rows(cameras: Iterable[str]) -> tuple[Parameter, ...]:
    """Every parameter of a node with these cameras."""
    return tuple(row.named(camera) for camera in cameras for row in PER_CAMERA) + NODE


def yaml_text() -> str:
    """Text of config/segment.param.yaml: every parameter with its default, its description above it."""
    lines = [
        "# yaml-language-server: $schema=segment.schema.json",
        "# Parameters of the node `mfuser` with their defaults; written by mfuser_ros.node.parameters.yaml_text().",
        "# ** fits the node in any namespace and under any name.",
        "/**:",
        "  ros__parameters:",
    ]
    (cameras,) = (row.default for row in NODE if row.name == "cameras")
    assert isinstance(cameras, tuple)
    for row in rows(str(camera) for camera in cameras):
        limits = _limits(row)
        lines.append(f"    # {row.description}" + (f" [{limits}]" if limits else ""))
        lines.append(f"    # {row.name}: [...]" if row.default is None else f"    {row.name}: {_yaml(row.default)}")
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """The parameters as a Markdown table, for the README."""
    lines = ["| name | type | default | range | run time | meaning |", "|---|---|---|---|---|---|"]
    for row in PER_CAMERA + NODE:
        default = "unset" if row.default is None else f"`{_yaml(row.default)}`"
        run_time = "yes" if row.run_time else "no"
        lines.append(f"| `{row.name}` | {row.type} | {default} | {_limits(row)} | {run_time} | {row.description} |")
    return "\n".join(lines) + "\n"


def _limits(row: Parameter) -> str:
    if row.choices:
        return ", ".join(row.choices)
    return "" if row.range is None else f"{row.range[0]:g} to {row.range[1]:g}"


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
