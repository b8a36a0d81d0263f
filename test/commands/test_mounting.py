"""Static transforms of a bag, written by rosbags itself."""

import numpy as np
import pytest

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

from mfuser_ros.bags import BagReader  # noqa: E402
from mfuser_ros.commands.mounting import static_pose  # noqa: E402
from mfuser_ros.errors import InputError  # noqa: E402

STORE = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
HALF = np.sqrt(0.5)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # x y z w: optical axes in a frame with x forward, by REP 103


def write(path, *transforms):
    """Each: parent, child, (x, y, z), quaternion (x, y, z, w)."""
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    entries = [
        types["geometry_msgs/msg/TransformStamped"](
            header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=parent),
            child_frame_id=child,
            transform=types["geometry_msgs/msg/Transform"](
                translation=types["geometry_msgs/msg/Vector3"](*map(float, shift)),
                rotation=types["geometry_msgs/msg/Quaternion"](*map(float, turn)),
            ),
        )
        for parent, child, shift, turn in transforms
    ]
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        kind = "tf2_msgs/msg/TFMessage"
        for entry in entries:
            connection = next((c for c in writer.connections), None) or writer.add_connection(
                "/tf_static", kind, typestore=STORE
            )
            message = types[kind](transforms=[entry])
            writer.write(connection, 10**9, STORE.serialize_cdr(message, kind))
    return path


def test_chain_of_frames_leads_from_the_camera_to_the_vehicle(tmp_path):
    bag = write(
        tmp_path / "bag",
        ("base_link", "mast", (1.0, 0.0, 1.5), (0, 0, HALF, HALF)),  # turned to the left by 90 degrees
        ("/mast", "front_optical", (0.2, 0.0, 0.0), OPTICAL),
    )

    with BagReader(bag) as reader:
        pose = static_pose(reader, "base_link", "front_optical")

    np.testing.assert_allclose(pose[:3, 3], [1.0, 0.2, 1.5], atol=1e-9)  # 0.2 m along the mast's x, which points left
    np.testing.assert_allclose(pose[:3, 2], [0, 1, 0], atol=1e-9)  # the optical axis too
    np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=1e-9)


def test_transform_that_is_published_from_the_camera_is_turned_round(tmp_path):
    bag = write(tmp_path / "bag", ("camera", "base_link", (0.0, 0.0, -1.5), (0, 0, 0, 1)))

    with BagReader(bag) as reader:
        np.testing.assert_allclose(static_pose(reader, "base_link", "camera")[:3, 3], [0, 0, 1.5])


def test_frames_that_are_not_joined_have_no_pose(tmp_path):
    bag = write(tmp_path / "bag", ("base_link", "mast", (0, 0, 1), (0, 0, 0, 1)))

    with BagReader(bag) as reader:
        assert static_pose(reader, "base_link", "camera") is None
        assert static_pose(reader, "odom", "mast") is None


def test_quaternion_of_no_length_is_refused(tmp_path):
    bag = write(tmp_path / "bag", ("base_link", "camera", (0, 0, 1), (0, 0, 0, 0)))

    with BagReader(bag) as reader, pytest.raises(InputError, match="from base_link to camera: rotation"):
        static_pose(reader, "base_link", "camera")
