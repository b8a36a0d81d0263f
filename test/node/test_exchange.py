import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the [ros] extra")

from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, PointCloud2, PointField

from mfuser_ros.bags.read import COMPRESSED_IMAGE, IMAGE, Frame
from mfuser_ros.node import exchange

TYPES = get_typestore(Stores.ROS2_JAZZY)
STAMP_NS = 1_700_000_000_120_000_005


def recorded(name, **fields):
    return TYPES.types[name](**fields)


def header(frame_id="cam"):
    stamp = recorded("builtin_interfaces/msg/Time", sec=STAMP_NS // 10**9, nanosec=STAMP_NS % 10**9)
    return recorded("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def frame(kind, message, info=None):
    return Frame(0, STAMP_NS, message.header.frame_id, kind, message, info)


def assert_same_on_the_wire(message, original, kind):
    """What rosbags reads of the bytes that ROS writes is the original."""
    received = TYPES.deserialize_cdr(serialize_message(message), kind)  # padding bytes between fields are arbitrary
    assert bytes(TYPES.serialize_cdr(received, kind)) == bytes(TYPES.serialize_cdr(original, kind))


def test_recorded_camera_info_is_sent_with_every_field():
    region = recorded("sensor_msgs/msg/RegionOfInterest", x_offset=1, y_offset=2, height=3, width=4, do_rectify=True)
    info = recorded(
        "sensor_msgs/msg/CameraInfo",
        header=header("lens"),
        height=480,
        width=640,
        distortion_model="rational_polynomial",
        d=np.arange(8, dtype=np.float64),
        k=np.arange(9, dtype=np.float64),
        r=np.arange(9, dtype=np.float64) + 10,
        p=np.arange(12, dtype=np.float64) + 20,
        binning_x=2,
        binning_y=3,
        roi=region,
    )
    message = exchange.info_message(frame(IMAGE, info), info)
    assert_same_on_the_wire(message, info, "sensor_msgs/msg/CameraInfo")


def test_recorded_pictures_are_sent_unchanged():
    data = np.arange(40, dtype=np.uint8)
    raw = recorded(
        "sensor_msgs/msg/Image",
        header=header(),
        height=2,
        width=5,
        encoding="bgr8",
        is_bigendian=0,
        step=20,
        data=data,
    )
    assert_same_on_the_wire(exchange.image_message(frame(IMAGE, raw)), raw, "sensor_msgs/msg/Image")
    jpeg = recorded("sensor_msgs/msg/CompressedImage", header=header(), format="jpeg", data=data)
    message = exchange.image_message(frame(COMPRESSED_IMAGE, jpeg))
    assert_same_on_the_wire(message, jpeg, "sensor_msgs/msg/CompressedImage")


def test_row_padding_of_a_mask_is_left_out():
    message = Image(height=2, width=3, step=4, encoding="mono8", data=array.array("B", [1, 2, 3, 9, 4, 5, 6, 9]))
    np.testing.assert_array_equal(exchange.pixels(message), [[1, 2, 3], [4, 5, 6]])


def test_contacts_are_found_by_the_names_of_their_fields():
    layout = {"class_id": (0, PointField.UINT8), "z": (4, PointField.FLOAT32), "y": (8, PointField.FLOAT32)}
    layout["x"] = (16, PointField.FLOAT32)
    fields = [PointField(name=name, offset=at, datatype=kind, count=1) for name, (at, kind) in layout.items()]
    data = bytearray(40)
    for index, (x, y, z, class_id) in enumerate([(1.0, 2.0, 0.5, 13), (4.0, -5.0, 0.5, 2)]):
        data[20 * index] = class_id
        data[20 * index + 4 : 20 * index + 12] = np.array([z, y], np.float32).tobytes()
        data[20 * index + 16 : 20 * index + 20] = np.float32(x).tobytes()
    cloud = PointCloud2(height=1, width=2, fields=fields, point_step=20, row_step=40, data=array.array("B", data))
    np.testing.assert_array_equal(exchange.contacts(cloud), [[1.0, 2.0, 0.5, 13.0], [4.0, -5.0, 0.5, 2.0]])


def test_empty_cloud_has_no_contacts():
    fields = [PointField(name=name, offset=4 * at, datatype=7, count=1) for at, name in enumerate(("x", "y", "z"))]
    fields.append(PointField(name="class_id", offset=12, datatype=PointField.UINT8, count=1))
    assert exchange.contacts(PointCloud2(height=1, width=0, fields=fields, point_step=13)).shape == (0, 4)
