import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mfuser_ros.bags import BagReader, BagWriter, CameraCalibration, Topic
from mfuser_ros.errors import InputError

SECOND_NS = 10**9


def calibration(focal):
    return CameraCalibration(4, 4, "plumb_bob", np.zeros(5), np.diag([focal, focal, 1.0]), np.eye(3), np.eye(3, 4))


def write_drive(path, *, storage="mcap", topics=("/front/image_raw",)):
    """Two frames on each topic; the calibration comes at 0.5 s, is replaced at 1 s."""
    with BagWriter(path, storage=storage) as bag:
        for topic in topics:
            bag.image(topic, np.full((4, 4), 1, np.uint8), encoding="mono8", stamp_ns=0, frame_id="a")
        bag.camera_info("/front/camera_info", calibration(10), stamp_ns=SECOND_NS // 2, frame_id="a")
        bag.camera_info("/front/camera_info", calibration(20), stamp_ns=SECOND_NS, frame_id="a")
        for topic in topics:
            bag.image(topic, np.full((4, 4), 2, np.uint8), encoding="mono8", stamp_ns=SECOND_NS + 5, frame_id="b")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_frames_come_in_order_with_stamp_frame_and_newest_camera_info(tmp_path, storage):
    write_drive(tmp_path / "bag", storage=storage)
    with BagReader(tmp_path / "bag") as bag:
        first, second = bag.frames("/front/image_raw")
        assert bag.span_ns() == (0, SECOND_NS + 5)
        assert bag.count("/front/image_raw") == 2

    assert (first.index, first.stamp_ns, first.frame_id) == (0, 0, "a")
    assert (second.index, second.stamp_ns, second.frame_id) == (1, SECOND_NS + 5, "b")
    assert set(first.message.data) == {1}
    assert set(second.message.data) == {2}
    assert first.info.k[0] == 10  # none had come yet: the first of the bag
    assert second.info.k[0] == 20


@pytest.mark.parametrize(("storage", "file"), [("mcap", "bag.mcap"), ("sqlite3", "bag.db3")])
def test_bare_file_opens_like_its_folder(tmp_path, storage, file):
    write_drive(tmp_path / "bag", storage=storage)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with BagReader(tmp_path / "bag" / file) as bag:
        assert [frame.stamp_ns for frame in bag.frames(bag.image_topic())] == [0, SECOND_NS + 5]


def test_topics_are_listed_by_name(tmp_path):
    write_drive(tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics() == [
            Topic("/front/camera_info", "sensor_msgs/msg/CameraInfo", 2),
            Topic("/front/image_raw", "sensor_msgs/msg/Image", 2),
        ]


def test_camera_without_calibration_has_none(tmp_path):
    write_drive(tmp_path / "bag", topics=("/rear/image_raw",))
    with BagReader(tmp_path / "bag") as bag:
        assert [frame.info for frame in bag.frames("/rear/image_raw")] == [None, None]


def test_several_cameras_must_be_told_apart(tmp_path):
    write_drive(tmp_path / "bag", topics=("/front/image_raw", "/rear/image_raw"))
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(InputError, match=r"2 picture topics \(/front/image_raw, /rear/image_raw\): name one"):
            bag.image_topic()
        assert bag.image_topic("/rear/image_raw") == "/rear/image_raw"


def test_unknown_topic_is_answered_with_those_there_are(tmp_path):
    write_drive(tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(InputError, match="no picture topic /left: topics with pictures: /front/image_raw"):
            bag.image_topic("/left")
        with pytest.raises(InputError, match="no topic /left: topics are /front/camera_info, /front/image_raw"):
            next(bag.frames("/left"))


def test_topic_with_two_types_is_refused(tmp_path):
    types = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for kind in ("std_msgs/msg/String", "std_msgs/msg/Int8"):
            connection = writer.add_connection("/a", kind, typestore=types)
            value = "x" if kind.endswith("String") else 1
            writer.write(connection, 0, types.serialize_cdr(types.types[kind](data=value), kind))
    with (
        BagReader(tmp_path / "bag") as bag,
        pytest.raises(InputError, match="topic /a has two types"),
    ):
        next(bag.messages("/a"))
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics() == [Topic("/a", "std_msgs/msg/Int8 and std_msgs/msg/String", 2)]


def test_empty_bag_has_no_span(tmp_path):
    with BagWriter(tmp_path / "bag"):
        pass
    with BagReader(tmp_path / "bag") as bag:
        assert bag.span_ns() == (0, 0)
        with pytest.raises(InputError, match=r"0 picture topics \(none\)"):
            bag.image_topic()
