"""Every topic and service of the node, each written down once: publishers, README and security policy come from here.

Needs no ROS. `<cam>` stands for the name of each camera. A name that begins with ~ belongs to the node, one with / is
global, any other resolves in the node's namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from mfuser_ros.node.parameters import CAMERA

Profile = Literal["picture", "camera_info", "odometry", "results", "latched", "grid", "diagnostics", "ros"]
"""Name of a function in `mfuser_ros.node.qos`; `ros`: made by rclpy or tf2 themselves."""


@dataclass(frozen=True)
class Topic:
    """One row of the table.

    Attributes:
        name: as given to rclpy; inputs may be renamed by parameters.
        type: of the messages, such as `sensor_msgs/msg/Image`.
        profile: of QoS.
        note: one line for the documentation.
        only: when the topic exists; empty: always while the node is configured (outputs) or active (inputs).
        optional: it does not exist where the package of its type is not installed.
        stamped_type: taken instead of `type` where its package is installed.
    """

    name: str
    type: str
    profile: Profile
    note: str
    only: str = ""
    optional: bool = False
    stamped_type: str = ""

    def named(self, camera: str) -> Topic:
        """The row of one camera."""
        return replace(self, name=self.name.replace(CAMERA, camera))

    @property
    def is_of_camera(self) -> bool:
        """Whether every camera has one of its own."""
        return CAMERA in self.name


@dataclass(frozen=True)
class Service:
    """A service that the node offers; rclpy makes them all."""

    name: str
    type: str


IMAGE = Topic(
    "<cam>/image_raw",
    "sensor_msgs/msg/Image",
    "picture",
    r"rgb8, bgr8, rgba8, bgra8, mono8, bayer_\*8, yuyv, uyvy, mono16, rgb16, bgr16, 8UC3; depth and label pictures are "
    "refused",
    only="transport: raw",
)
COMPRESSED_IMAGE = Topic(
    "<cam>/image_raw/compressed",
    "sensor_msgs/msg/CompressedImage",
    "picture",
    "JPEG or PNG",
    only="transport: compressed",
)
CAMERA_INFO_IN = Topic(
    "<cam>/camera_info",
    "sensor_msgs/msg/CameraInfo",
    "camera_info",
    "beside the image topic; needed for the grid; the newest applies to the pictures that follow",
)
ODOMETRY = Topic(
    "<odometry_topic>",
    "nav_msgs/msg/Odometry",
    "odometry",
    "motion of the vehicle, for `grid.decay`",
    only="odometry_topic is set",
)
TF = Topic("/tf", "tf2_msgs/msg/TFMessage", "ros", "poses of cameras that move", only="tf2_ros is installed")
TF_STATIC = Topic("/tf_static", "tf2_msgs/msg/TFMessage", "ros", "poses of cameras", only="tf2_ros is installed")
CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock", "ros", "the time", only="use_sim_time")

MASK = Topic(
    "~/<cam>/mask",
    "sensor_msgs/msg/Image",
    "results",
    "mono8: class ids, 255 unknown; header of the picture, size of the picture or `<cam>.output_size`",
)
CONFIDENCE = Topic(
    "~/<cam>/confidence",
    "sensor_msgs/msg/Image",
    "results",
    "mono8: 0..255 = 0..1; 0 where the mask is 255; only while somebody listens",
)
OVERLAY = Topic(
    "~/<cam>/overlay", "sensor_msgs/msg/Image", "results", "rgb8: only while somebody listens, at most `overlay_rate`"
)
CAMERA_INFO = Topic(
    "~/<cam>/camera_info",
    "sensor_msgs/msg/CameraInfo",
    "results",
    "that of the picture at the mask's size, with every mask",
)
MASK_RLE = Topic(
    "~/<cam>/mask_rle",
    "sensor_msgs/msg/Image",
    "results",
    "run lengths of Autoware's classes, for segmentation_pointcloud_fusion",
    only="autoware_mask",
)
CLASS_MAP = Topic(
    "~/class_map", "std_msgs/msg/String", "latched", "JSON: id, name, colour and whether one may drive on it"
)
LABEL_INFO = Topic(
    "~/label_info",
    "vision_msgs/msg/LabelInfo",
    "latched",
    "id and name of every class",
    only="vision_msgs is installed",
    optional=True,
)
GRID = Topic(
    "~/drivable_area/grid",
    "nav_msgs/msg/OccupancyGrid",
    "grid",
    "0 free, 100 occupied, -1 unknown; stamp of the picture",
)
BOUNDARY = Topic(
    "~/drivable_area/boundary",
    "geometry_msgs/msg/PolygonStamped",
    "results",
    "outline of the free area, counter-clockwise",
)
CONTACTS = Topic(
    "~/drivable_area/contacts",
    "sensor_msgs/msg/PointCloud2",
    "results",
    "where things that stand touch the ground: x, y, z, class_id",
)
DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "diagnostics",
    "state, rates, latencies and the last error of every camera, once a second and when a level changes",
    only="always, also before the node is configured",
)

_STAMPED = "autoware_internal_debug_msgs/msg/Float64Stamped"


def _time(name: str, note: str) -> Topic:
    return Topic(f"~/debug/{name}_ms", "std_msgs/msg/Float64", "results", note, stamped_type=_STAMPED)


TIMES = {
    "processing_time": _time("processing_time", "from the begin of work on a picture to its mask"),
    "cyclic_time": _time("cyclic_time", "from one begin of work to the next"),
    "pipeline_latency": _time("pipeline_latency", "from the picture's stamp to its mask"),
    "processing_time/preprocess": _time("processing_time/preprocess", "of it: picture to network input"),
    "processing_time/inference": _time("processing_time/inference", "of it: the network"),
    "processing_time/postprocess": _time("processing_time/postprocess", "of it: scores to mask and confidence"),
}

SUBSCRIBED = (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO_IN, ODOMETRY, TF, TF_STATIC, CLOCK)
PUBLISHED = (
    MASK, CONFIDENCE, OVERLAY, CAMERA_INFO, MASK_RLE, CLASS_MAP, LABEL_INFO, GRID, BOUNDARY, CONTACTS, DIAGNOSTICS,
    *TIMES.values(),
)  # fmt: skip
OF_EVERY_NODE = (
    Topic("/parameter_events", "rcl_interfaces/msg/ParameterEvent", "ros", "changes of parameters"),
    Topic("/rosout", "rcl_interfaces/msg/Log", "ros", "the log"),
    Topic("~/transition_event", "lifecycle_msgs/msg/TransitionEvent", "ros", "changes of the lifecycle state"),
)
"""What rclpy publishes for a lifecycle node."""

SERVICES = (
    Service("~/change_state", "lifecycle_msgs/srv/ChangeState"),
    Service("~/get_state", "lifecycle_msgs/srv/GetState"),
    Service("~/get_available_states", "lifecycle_msgs/srv/GetAvailableStates"),
    Service("~/get_available_transitions", "lifecycle_msgs/srv/GetAvailableTransitions"),
    Service("~/get_transition_graph", "lifecycle_msgs/srv/GetAvailableTransitions"),
    Service("~/describe_parameters", "rcl_interfaces/srv/DescribeParameters"),
    Service("~/get_parameter_types", "rcl_interfaces/srv/GetParameterTypes"),
    Service("~/get_parameters", "rcl_interfaces/srv/GetParameters"),
    Service("~/list_parameters", "rcl_interfaces/srv/ListParameters"),
    Service("~/set_parameters", "rcl_interfaces/srv/SetParameters"),
    Service("~/set_parameters_atomically", "rcl_interfaces/srv/SetParametersAtomically"),
    Service("~/get_type_description", "type_description_interfaces/srv/GetTypeDescription"),
)


def expanded(topics: Iterable[Topic], cameras: Iterable[str]) -> list[Topic]:
    """The rows of a node with these cameras."""
    names = list(cameras)
    return [row for topic in topics for row in (map(topic.named, names) if topic.is_of_camera else (topic,))]


def markdown_table(topics: Iterable[Topic], verb: str) -> str:
    """Topics as a Markdown table, for the README; `verb` heads the column of names."""
    lines = [f"| {verb} | type | exists | note |", "|---|---|---|---|"]
    for row in topics:
        kind = row.type.replace("/msg/", "/")
        lines.append(f"| `{row.name}` | {kind} | {row.only or 'always'} | {row.note} |")
    return "\n".join(lines) + "\n"
