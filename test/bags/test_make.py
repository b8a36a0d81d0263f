import cv2
import numpy as np
import pytest

from mfuser_ros.bags import BagReader, CameraCalibration, make_bag
from mfuser_ros.errors import CalibrationError, InputError

CALIBRATION = CameraCalibration(32, 16, "plumb_bob", np.zeros(5), np.diag([9.0, 9, 1]), np.eye(3), np.eye(3, 4))


def pictures(count=3, shape=(16, 32, 3)):
    """Flat pictures, redder each time."""
    return [np.full(shape, (60 * index, 40, 90), np.uint8) for index in range(count)]


def test_frame_i_is_stamped_start_plus_i_periods(tmp_path):
    made = make_bag(pictures(), tmp_path / "bag", period_ns=120_000_000, start_ns=5 * 10**9, calibration=CALIBRATION)
    assert made[1:] == (3, "/front/image_raw/compressed", "/front/camera_info")
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
    np.testing.assert_array_equal(found, pictures())


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
