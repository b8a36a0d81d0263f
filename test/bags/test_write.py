import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from mfuser_ros.bags import BagReader, BagWriter, CameraCalibration
from mfuser_ros.errors import InputError

STAMP_NS = 1_700_000_000_120_000_005
FRAME = "front_camera_optical_frame"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_image_comes_back_with_the_library_alone(tmp_path, storage):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    with BagWriter(tmp_path / "bag", storage=storage) as bag:
        bag.image("/front/image_raw", picture, encoding="bgr8", stamp_ns=STAMP_NS, frame_id=FRAME)

    types = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(tmp_path / "bag") as reader:
        ((connection, filed_ns, raw),) = reader.messages()
        message = types.deserialize_cdr(raw, connection.msgtype)
    assert connection.topic == "/front/image_raw"
    assert filed_ns == STAMP_NS
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 120_000_005)
    assert message.header.frame_id == FRAME
    assert (message.height, message.width, message.step, message.encoding) == (2, 3, 9, "bgr8")
    assert message.data.tolist() == list(range(18))


def test_camera_info_keeps_every_number(tmp_path):
    K = np.array([[100.5, 0, 31], [0, 101.5, 23], [0, 0, 1]])
    P = np.hstack([K, [[7.0], [0], [0]]])
    D = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    calibration = CameraCalibration(64, 48, "plumb_bob", D, K, np.eye(3), P)
    with BagWriter(tmp_path / "bag") as bag:
        bag.camera_info("/front/camera_info", calibration, stamp_ns=STAMP_NS, frame_id=FRAME)

    with BagReader(tmp_path / "bag") as bag:
        (message,) = bag.messages("/front/camera_info")
    assert (message.width, message.height, message.distortion_model) == (64, 48, "plumb_bob")
    assert message.k.tolist() == [100.5, 0, 31, 0, 101.5, 23, 0, 0, 1]
    assert message.d.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert message.r.tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert message.p.tolist() == [100.5, 0, 31, 7, 0, 101.5, 23, 0, 0, 0, 1, 0]
    assert message.header.frame_id == FRAME


def test_offered_qos_is_that_of_a_driver_a_result_and_a_latched_text(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.compressed_image("/front/image_raw/compressed", b"x", form="jpeg", stamp_ns=STAMP_NS, frame_id=FRAME)
        bag.mask("/mfuser/front/mask", np.zeros((2, 2), np.uint8), stamp_ns=STAMP_NS, frame_id=FRAME)
        bag.latched_text("/mfuser/class_map", "{}", stamp_ns=STAMP_NS)

    with BagReader(tmp_path / "bag") as bag:
        profiles = {topic.name: bag.offered_qos(topic.name)[0] for topic in bag.topics()}
    assert profiles["/front/image_raw/compressed"].reliability is QosReliability.BEST_EFFORT
    assert profiles["/mfuser/front/mask"].reliability is QosReliability.RELIABLE
    assert profiles["/mfuser/front/mask"].durability is QosDurability.VOLATILE
    assert profiles["/mfuser/class_map"].durability is QosDurability.TRANSIENT_LOCAL


def test_compressed_mask_is_small_and_unchanged(tmp_path):
    mask = np.zeros((480, 640), np.uint8)
    mask[100:200] = 255
    with BagWriter(tmp_path / "bag", compress=True) as bag:
        for index in range(5):
            bag.mask("/mfuser/front/mask", mask, stamp_ns=STAMP_NS + index, frame_id=FRAME)

    assert (tmp_path / "bag" / "bag.mcap").stat().st_size < mask.size / 10  # five masks
    with BagReader(tmp_path / "bag") as bag:
        masks = [frame.message.data.reshape(480, 640) for frame in bag.frames("/mfuser/front/mask")]
    assert len(masks) == 5
    assert all((found == mask).all() for found in masks)


def test_second_reader_library_sees_the_same_masks(tmp_path):
    with BagWriter(tmp_path / "bag", compress=True) as bag:
        bag.mask("/mfuser/front/mask", np.full((2, 2), 13, np.uint8), stamp_ns=STAMP_NS, frame_id=FRAME)

    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        ((schema, channel, message),) = make_reader(file).iter_messages()
    assert (schema.name, channel.topic, message.log_time) == ("sensor_msgs/msg/Image", "/mfuser/front/mask", STAMP_NS)
    assert message.data.endswith(b"\x04\x00\x00\x00\x0d\x0d\x0d\x0d")  # length and bytes of `data`, the last field


def test_existing_path_is_not_overwritten(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(InputError, match="bag: exists already: give another path or delete it first"):
        BagWriter(tmp_path / "bag")


def test_compressed_sqlite_is_refused(tmp_path):
    with pytest.raises(InputError, match="sqlite3 bags are not compressed: choose the storage mcap"):
        BagWriter(tmp_path / "bag", storage="sqlite3", compress=True)


def test_failed_bag_leaves_nothing_behind(tmp_path):
    wrong = np.zeros((2, 2, 4), np.uint8)
    with (
        pytest.raises(
            InputError, match=r"/front/image_raw: rgb8 wants uint8 with 3 channel\(s\), found uint8 \(2, 2, 4\)"
        ),
        BagWriter(tmp_path / "bag") as bag,
    ):
        bag.image("/front/image_raw", wrong, encoding="rgb8", stamp_ns=STAMP_NS, frame_id=FRAME)
    assert not (tmp_path / "bag").exists()


def test_one_topic_holds_one_type(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.mask("/a", np.zeros((2, 2), np.uint8), stamp_ns=STAMP_NS, frame_id=FRAME)
        with pytest.raises(InputError, match="topic /a holds sensor_msgs/msg/Image, not std_msgs/msg/String"):
            bag.latched_text("/a", "x", stamp_ns=STAMP_NS)
