import cv2
import numpy as np
import pytest
from rosbags.interfaces import QosDurability, QosReliability

from mfuser_ros.bags import BagReader, CameraCalibration, Shot, make_bag
from mfuser_ros.errors import CalibrationError, InputError

CALIBRATION = CameraCalibration(32, 16, "plumb_bob", np.zeros(5), np.diag([9.0, 9, 1]), np.eye(3), np.eye(3, 4))


def pictures(count=3, shape=(16, 32, 3)):
    """Flat pictures, redder each time."""
    return [Shot(np.full(shape, (60 * index, 40, 90), np.uint8)) for index in range(count)]


def test_frame_i_is_stamped_start_plus_i_periods(tmp_path):
    made = make_bag(pictures(), tmp_path / "bag", period_ns=120_000_000, start_ns=5 * 10**9, calibration=CALIBRATION)
    assert made[1:] == (3, "/front/image_raw/compressed", "/front/camera_info", None)
    with BagReader(made.path) as bag:
        frames = list(bag.frames(made.picture_topic))
        infos = list(bag.messages("/front/camera_info"))
    assert [frame.stamp_ns for frame in frames] == [5_000_000_000, 5_120_000_000, 5_240_000_000]
    assert {frame.frame_id for frame in frames} == {"front_camera_optical_frame"}
    assert [info.header.stamp.nanosec for info in infos] == [0, 120_000_000, 240_000_000]
    assert {info.header.frame_id for info in infos} == {"front_camera_optical_frame"}
    assert frames[0].info.k[0] == 9


def test_jpeg_keeps_the_order_of_the_colours(tmp_path):
    made = make_bag(pictures(), tmp_path / "bag", period_ns=1, start_ns=0, jpeg_quality=95)
    with BagReader(made.path) as bag:
        frame = list(bag.frames(made.picture_topic))[2]
    assert frame.message.format == "rgb8; jpeg compressed bgr8"
    blue, green, red = cv2.imdecode(frame.message.data, cv2.IMREAD_COLOR)[8, 16].astype(int)
    np.testing.assert_allclose((red, green, blue), (120, 40, 90), atol=3)  # JPEG rounds


def test_raw_pictures_are_kept_exactly(tmp_path):
    made = make_bag(pictures(), tmp_path / "bag", period_ns=1, start_ns=0, jpeg_quality=None, storage="sqlite3")
    assert made.picture_topic == "/front/image_raw"
    assert made.info_topic is None
    with BagReader(made.path) as bag:
        found = [frame.message.data.reshape(16, 32, 3) for frame in bag.frames(made.picture_topic)]
    np.testing.assert_array_equal(found, [shot.picture for shot in pictures()])


def test_topic_and_frame_can_be_named(tmp_path):
    made = make_bag(
        pictures(),
        tmp_path / "bag",
        period_ns=1,
        start_ns=0,
        image_topic="/rear/raw",
        frame_id="eye",
        calibration=CALIBRATION,
    )
    with BagReader(made.path) as bag:
        assert [topic.name for topic in bag.topics()] == ["/rear/camera_info", "/rear/raw/compressed"]
        assert next(bag.frames("/rear/raw/compressed")).frame_id == "eye"


def test_nothing_to_write_leaves_no_bag(tmp_path):
    with pytest.raises(InputError, match="no pictures to write"):
        make_bag([], tmp_path / "bag", period_ns=1, start_ns=0)
    assert not (tmp_path / "bag").exists()


def test_second_size_is_refused(tmp_path):
    mixed = [*pictures(1), *pictures(1, shape=(16, 16, 3))]
    with pytest.raises(InputError, match="picture 1 is 16x16, the first was 32x16: give one size"):
        make_bag(mixed, tmp_path / "bag", period_ns=1, start_ns=0)


def test_calibration_of_another_size_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="camera calibration is for 32x16, pictures are 16x16"):
        make_bag(pictures(shape=(16, 16, 3)), tmp_path / "bag", period_ns=1, start_ns=0, calibration=CALIBRATION)


def test_calibration_of_another_frame_is_refused(tmp_path):
    other = CameraCalibration(32, 16, "", np.zeros(0), np.eye(3), np.eye(3), np.eye(3, 4), frame_id="rear")
    with pytest.raises(
        CalibrationError, match="camera calibration is of frame rear, the bag's is front_camera_optical_"
    ):
        make_bag(pictures(), tmp_path / "bag", period_ns=1, start_ns=0, calibration=other)


def test_encoded_pictures_and_labels_are_recorded_as_they_are(tmp_path):
    files = [cv2.imencode(suffix, np.full((16, 32, 3), 9, np.uint8))[1].tobytes() for suffix in (".jpg", ".png")]
    shots = [Shot(np.zeros((16, 32, 3), np.uint8), file, np.full((16, 32), 7, np.uint8)) for file in files]
    made = make_bag(shots, tmp_path / "bag", period_ns=1, start_ns=0, scheme='{"name": "x"}')
    assert made.label_topic == "/front/label"
    with BagReader(made.path) as bag:
        frames = list(bag.frames(made.picture_topic))
        labels = list(bag.messages("/front/label"))
        (scheme,) = bag.messages("/front/label/scheme")
        assert bag.offered_qos("/front/label/scheme")[0].durability is QosDurability.TRANSIENT_LOCAL
        assert bag.offered_qos("/front/label")[0].reliability is QosReliability.RELIABLE
    assert [bytes(frame.message.data) for frame in frames] == files
    assert [frame.message.format for frame in frames] == ["rgb8; jpeg compressed bgr8", "rgb8; png compressed bgr8"]
    assert [(label.encoding, label.data[0], label.header.stamp.nanosec) for label in labels] == [
        ("mono8", 7, 0),
        ("mono8", 7, 1),
    ]
    assert scheme.data == '{"name": "x"}'
