"""Frames of a bag as messages of rclpy, and the node's answers as arrays."""

from __future__ import annotations

import array
from typing import Any, NamedTuple

import numpy as np
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from mfuser_ros.bags.read import COMPRESSED_IMAGE, Frame

CONTACT_FIELDS = {"x": "<f4", "y": "<f4", "z": "<f4", "class_id": "u1"}


class Grid(NamedTuple):
    """An OccupancyGrid.

    Attributes:
        occupancy: int8 (rows, cols), row is y, column is x: -1 unknown, 0 free, 100 occupied.
        resolution: side of a cell, metres.
        x_min, y_min: corner of cell (0, 0), metres.
        frame_id: of the coordinates.
    """

    occupancy: np.ndarray
    resolution: float
    x_min: float
    y_min: float
    frame_id: str


def _stamp(message: Any, frame: Frame, frame_id: str) -> None:  # Any: an rclpy message with a header
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(frame.stamp_ns, 10**9)
    message.header.frame_id = frame_id


def image_message(frame: Frame) -> CompressedImage | Image:
    """The picture of a frame as it was recorded."""
    recorded = frame.message
    message: Any = CompressedImage() if frame.kind == COMPRESSED_IMAGE else Image()  # Any: their fields differ
    _stamp(message, frame, frame.frame_id)
    if frame.kind == COMPRESSED_IMAGE:
        message.format = recorded.format
    else:
        message.height, message.width, message.step = int(recorded.height), int(recorded.width), int(recorded.step)
        message.encoding, message.is_bigendian = recorded.encoding, int(recorded.is_bigendian)
    content = array.array("B")
    content.frombytes(np.ascontiguousarray(recorded.data).data)  # a setter fed anything else copies byte by byte
    message.data = content
    return message


def info_message(frame: Frame, recorded: Any) -> CameraInfo:  # Any: rosbags makes the class at run time
    """A recorded CameraInfo with the stamp of a frame."""
    message = CameraInfo()
    _stamp(message, frame, recorded.header.frame_id)
    message.width, message.height = int(recorded.width), int(recorded.height)
    message.distortion_model = recorded.distortion_model
    message.d = array.array("d", recorded.d.tolist())
    message.k, message.r, message.p = recorded.k.tolist(), recorded.r.tolist(), recorded.p.tolist()
    message.binning_x, message.binning_y = int(recorded.binning_x), int(recorded.binning_y)
    message.roi.x_offset, message.roi.y_offset = int(recorded.roi.x_offset), int(recorded.roi.y_offset)
    message.roi.width, message.roi.height = int(recorded.roi.width), int(recorded.roi.height)
    message.roi.do_rectify = bool(recorded.roi.do_rectify)
    return message


def pixels(message: Image) -> np.ndarray:
    """uint8 (H, W) of a mono8 Image, without row padding."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width]


def grid(message: OccupancyGrid) -> Grid:
    """The cells of a message as an array."""
    info = message.info
    return Grid(
        np.frombuffer(message.data, np.int8).reshape(info.height, info.width),
        float(info.resolution),
        float(info.origin.position.x),
        float(info.origin.position.y),
        str(message.header.frame_id),
    )


def contacts(message: PointCloud2) -> np.ndarray:
    """float32 (N, 4) x, y, z in metres and class id of a cloud of contacts, whatever the order of its fields."""
    offsets = {field.name: field.offset for field in message.fields}
    layout = np.dtype(
        {
            "names": list(CONTACT_FIELDS),
            "formats": list(CONTACT_FIELDS.values()),
            "offsets": [offsets[name] for name in CONTACT_FIELDS],
            "itemsize": message.point_step,
        }
    )
    points = np.frombuffer(message.data, layout, count=message.width * message.height)
    return np.stack([points[name].astype(np.float32) for name in CONTACT_FIELDS], axis=1)
