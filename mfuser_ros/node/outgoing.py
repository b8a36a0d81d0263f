"""Arrays to messages. Pixels and cells are written in place into messages that are kept: the fast way in rclpy.

Assigning a list, bytes or a numpy array to `data` takes up to a second for one picture, so only `array.array` is.
Fast DDS has copied a message when `publish` returns, so its buffer may be written again.
"""

from __future__ import annotations

import array
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point32, PolygonStamped
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header, String

from mfuser_ros.drivable import GridSpec
from mfuser_ros.node.topics import message_class
from mfuser_ros.vocabulary import UNKNOWN, Vocabulary

CONTACT = np.dtype(
    {
        "names": ["x", "y", "z", "class_id"],
        "formats": ["<f4", "<f4", "<f4", "u1"],
        "offsets": [0, 4, 8, 12],
        "itemsize": 16,
    }
)
"""One point of the contacts; the three spare bytes keep the floats aligned."""

UNKNOWN_CELL = -1
UNLABELLED = (UNKNOWN, "unlabeled")


class PictureMessage:
    """An Image that is used again for every picture."""

    def __init__(self, encoding: str) -> None:
        self._channels = {"mono8": 1, "rgb8": 3}[encoding]
        self.message = Image(encoding=encoding, is_bigendian=0)

    def pixels(self, header: Header, height: int, width: int) -> np.ndarray:
        """Array to write the picture into: (height, width) uint8 for mono8, (height, width, 3) for rgb8."""
        row_bytes = width * self._channels
        message = self.message
        message.header = header
        if (message.height, message.width) != (height, width):
            message.height, message.width, message.step = int(height), int(width), int(row_bytes)
            message.data = array.array("B", bytes(row_bytes * height))
        view = np.frombuffer(message.data, np.uint8)
        return view.reshape((height, width) if self._channels == 1 else (height, width, self._channels))


class GridMessage:
    """An OccupancyGrid that is used again for every update."""

    def __init__(self, spec: GridSpec, frame: str) -> None:
        self.message = OccupancyGrid()
        self.message.header.frame_id = frame
        self.message.info.resolution = float(spec.resolution)
        self.message.info.width, self.message.info.height = int(spec.cols), int(spec.rows)
        self.message.info.origin.position.x = float(spec.x_min)
        self.message.info.origin.position.y = float(spec.y_min)
        self.message.info.origin.orientation.w = 1.0
        self.message.data = array.array("b", bytes(spec.rows * spec.cols))

    def cells(self, stamp: Time) -> np.ndarray:
        """(rows, cols) int8 array to write the cells into; sets both stamps."""
        self.message.header.stamp = self.message.info.map_load_time = stamp
        return np.frombuffer(self.message.data, np.int8).reshape(self.message.info.height, self.message.info.width)


def boundary_message(points: np.ndarray, z: float, header: Header) -> PolygonStamped:
    """Polygon through (M, 2) points in metres at height z."""
    polygon = PolygonStamped(header=header)
    polygon.polygon.points = [Point32(x=float(x), y=float(y), z=float(z)) for x, y in points]
    return polygon


def contacts_message(contacts: np.ndarray, z: float, header: Header) -> PointCloud2:
    """Cloud of (N, 4) contacts (x, y, ground, class id) at height z; no points is a valid cloud."""
    points = np.zeros(len(contacts), CONTACT)
    points["x"], points["y"], points["z"] = contacts[:, 0], contacts[:, 1], z
    points["class_id"] = contacts[:, 3].astype(np.uint8)
    cloud = PointCloud2(header=header, height=1, width=len(contacts), is_dense=True, is_bigendian=False)
    cloud.fields = [
        PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1),
        PointField(name="y", offset=4, datatype=PointField.FLOAT32, count=1),
        PointField(name="z", offset=8, datatype=PointField.FLOAT32, count=1),
        PointField(name="class_id", offset=12, datatype=PointField.UINT8, count=1),
    ]
    cloud.point_step = CONTACT.itemsize
    cloud.row_step = CONTACT.itemsize * len(contacts)
    cloud.data = bytes_of(points)
    return cloud


def bytes_of(values: np.ndarray) -> array.array[int]:
    """The memory of an array as what a message's `data` takes without a loop in Python."""
    return array.array("B", values.tobytes())


def class_map_message(vocabulary: Vocabulary, free_roles: Sequence[str]) -> String:
    """JSON that says what the ids of a mask mean."""
    classes = [
        {"id": entry.id, "name": entry.name, "color": list(entry.colour), "drivable": entry.role in free_roles}
        for entry in vocabulary.classes
    ]
    return String(data=json.dumps({"version": 1, "classes": classes, "unknown": UNKNOWN}))


def label_info_message(vocabulary: Vocabulary, threshold: float, stamp: Time) -> Any:  # Any: vision_msgs/LabelInfo
    """The names of the ids and the threshold below which a pixel is unknown.

    Raises:
        ImportError: vision_msgs is not installed.
    """
    label_info, vision_class = (message_class(f"vision_msgs/msg/{name}") for name in ("LabelInfo", "VisionClass"))
    names = [*((entry.id, entry.name) for entry in vocabulary.classes), UNLABELLED]
    message = label_info(threshold=float(threshold))
    message.header.stamp = stamp
    message.class_map = [vision_class(class_id=value, class_name=name) for value, name in names]
    return message
