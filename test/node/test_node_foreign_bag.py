"""Pictures of a bag that none of our code has written: serialised by ROS, stored as rosbag2 of Humble stores them.

The messages are made with the message packages and serialised by rclpy; file and metadata follow rosbag2's sqlite3
plugin and its metadata version 5, whose QoS is a text of numbers.
"""

from __future__ import annotations

import array
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in import picture

from mfuser_ros.bags import BagReader

START_NS = 1_700_000_000_000_000_000
FRAMES = 5
HEIGHT, WIDTH, PADDING = 48, 50, 14

# reliability 2 is best effort, durability 2 is volatile, history 1 is keep last
QOS = """- history: 1
  depth: 5
  reliability: 2
  durability: 2
  deadline:
    sec: 9223372036
    nsec: 854775807
  lifespan:
    sec: 9223372036
    nsec: 854775807
  liveliness: 1
  liveliness_lease_duration:
    sec: 9223372036
    nsec: 854775807
  avoid_ros_namespace_conventions: false
"""
TOPICS = {"/front/image_raw": "sensor_msgs/msg/Image", "/front/camera_info": "sensor_msgs/msg/CameraInfo"}


def rgb(number: int) -> np.ndarray:
    return picture(HEIGHT, WIDTH, seed=number)


def header(number: int) -> Any:
    from std_msgs.msg import Header

    found = Header(frame_id="front_optical")
    found.stamp.sec, found.stamp.nanosec = divmod(START_NS + number * 100_000_000, 10**9)
    return found


def messages(number: int) -> dict[str, Any]:
    """A picture as some drivers send it, bgr8 with padded rows, and its CameraInfo."""
    from sensor_msgs.msg import CameraInfo, Image

    rows = np.pad(rgb(number)[..., ::-1].reshape(HEIGHT, -1), ((0, 0), (0, PADDING)), constant_values=99)
    image = Image(header=header(number), height=HEIGHT, width=WIDTH, encoding="bgr8", step=WIDTH * 3 + PADDING)
    image.data = array.array("B", rows.tobytes())
    info = CameraInfo(header=header(number), height=HEIGHT, width=WIDTH, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [50.0, 0.0, 24.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    return {"/front/camera_info": info, "/front/image_raw": image}


@pytest.fixture(scope="module")
def bag(ros, tmp_path_factory) -> Path:
    from rclpy.serialization import serialize_message

    folder = tmp_path_factory.mktemp("bags") / "drive"
    folder.mkdir()
    storage = sqlite3.connect(folder / "drive_0.db3")
    storage.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
        "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, "
        "data BLOB NOT NULL);"
        "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
    )
    ids = {}
    for topic, kind in TOPICS.items():
        cursor = storage.execute(
            "INSERT INTO topics(name, type, serialization_format, offered_qos_profiles) VALUES (?, ?, 'cdr', ?)",
            (topic, kind, QOS),
        )
        ids[topic] = cursor.lastrowid
    for number in range(FRAMES):
        for topic, message in messages(number).items():
            received_ns = START_NS + number * 100_000_000 + 3_000_000
            storage.execute(
                "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)",
                (ids[topic], received_ns, serialize_message(message)),
            )
    storage.commit()
    storage.close()
    topics = "".join(
        f"    - topic_metadata:\n        name: {topic}\n        type: {kind}\n        serialization_format: cdr\n"
        f"        offered_qos_profiles: {QOS!r}\n      message_count: {FRAMES}\n".replace("'", '"')
        for topic, kind in TOPICS.items()
    )
    (folder / "metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  version: 5\n  storage_identifier: sqlite3\n"
        f"  duration:\n    nanoseconds: {(FRAMES - 1) * 100_000_000}\n"
        f"  starting_time:\n    nanoseconds_since_epoch: {START_NS}\n  message_count: {2 * FRAMES}\n"
        f"  topics_with_message_count:\n{topics}"
        '  compression_format: ""\n  compression_mode: ""\n  relative_file_paths:\n    - drive_0.db3\n'
        f"  files:\n    - path: drive_0.db3\n      starting_time:\n        nanoseconds_since_epoch: {START_NS}\n"
        f"      duration:\n        nanoseconds: {(FRAMES - 1) * 100_000_000}\n      message_count: {2 * FRAMES}\n"
    )
    return folder


def test_node_segments_the_pictures_under_their_own_qos(bench, bag):
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    from mfuser_ros.node import exchange

    bench = bench(grid__enabled=False)
    with BagReader(bag) as reader:
        (offered,) = reader.offered_qos("/front/image_raw")
        assert offered.reliability.name == "BEST_EFFORT"
        publisher = bench.graph.publisher(
            Image,
            "/front/image_raw",
            QoSProfile(depth=offered.depth, reliability=ReliabilityPolicy[offered.reliability.name]),
        )
        bench.graph.wait_for_match(publisher)
        frames = list(reader.frames("/front/image_raw"))
    assert len(frames) == FRAMES
    for number, frame in enumerate(frames):
        message = exchange.image_message(frame)
        assert (message.step, message.encoding) == (WIDTH * 3 + PADDING, "bgr8")
        bench.infos.clear()

        def send(message=message, frame=frame) -> None:
            bench.info_publishers["front"].publish(exchange.info_message(frame, frame.info))
            publisher.publish(message)

        bench.graph.repeat(send, lambda: bench.infos, "no mask with camera_info", 20)
        mask = next(mask for mask in reversed(bench.masks) if mask.header == bench.infos[-1].header)
        expected = np.where(rgb(number)[..., 1] >= 200, 255, rgb(number)[..., 0] % 19)
        assert mask.header == header(number)
        np.testing.assert_array_equal(np.array(mask.data).reshape(HEIGHT, WIDTH), expected)
