"""Bags as messages with due times."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the [ros] extra")

from mfuser_ros.bags import BagWriter, CameraCalibration
from mfuser_ros.errors import InputError
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.node.tape import Tape, ahead

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVE = REPOSITORY / "test" / "data" / "highway"
START_NS = 1_700_000_000_000_000_000
K = np.diag([50.0, 50.0, 1.0])
CALIBRATION = CameraCalibration(64, 48, "plumb_bob", np.zeros(5), K, np.eye(3), np.eye(3, 4))


def write(path, topics, *, pictures=4, interval_s=0.1, calibrated=()):
    """Pictures on raw or compressed topics, each topic 10 ms after the one before it."""
    with BagWriter(path) as bag:
        for index in range(pictures):
            tick_ns = START_NS + round(index * interval_s * 1e9)
            for place, topic in enumerate(topics):
                stamp_ns = tick_ns + place * 10_000_000
                picture = np.full((48, 64, 3), index, np.uint8)
                if topic.endswith("/compressed"):
                    encoded = cv2.imencode(".png", picture)[1].tobytes()
                    bag.compressed_image(topic, encoded, form="rgb8; png", stamp_ns=stamp_ns, frame_id="f")
                else:
                    bag.image(topic, picture, encoding="rgb8", stamp_ns=stamp_ns, frame_id="f")
            if index > 0:  # the first picture comes before any camera_info
                for topic in calibrated:
                    bag.camera_info(topic, CALIBRATION, stamp_ns=tick_ns, frame_id="f")
    return path


def test_packed_drive_is_one_compressed_camera_at_its_recorded_times():
    tape = Tape(DRIVE, BagSettings(stop_s=0.5))
    (camera,) = tape.cameras
    assert (camera.name, camera.image_topic, camera.compressed) == ("front", "/front/image_raw", True)
    assert (camera.frames, tape.pictures) == (75, 75)
    cues = list(tape.cues())
    assert [cue.due_s for cue in cues] == pytest.approx([0.0, 0.12, 0.24, 0.36, 0.48])
    assert all(cue.info.width == 1280 and len(cue.image.data) > 10_000 for cue in cues)


def test_cameras_are_named_by_their_topics(tmp_path):
    topics = [
        "/image_raw",
        "/grid/image",
        "/a/front/image",
        "/b/front/image",
        "/x/rear-left/image_raw/compressed",
    ]
    tape = Tape(write(tmp_path / "bag", topics), BagSettings())
    names = {camera.image_topic: camera.name for camera in tape.cameras}
    assert names == {
        "/image_raw": "camera",
        "/grid/image": "camera_grid",  # the node's own topics begin with grid
        "/a/front/image": "front",
        "/b/front/image": "front_2",
        "/x/rear-left/image_raw": "rear_left",
    }
    assert [camera.compressed for camera in tape.cameras if camera.name == "rear_left"] == [True]


def test_cues_of_several_cameras_come_in_recorded_order_with_the_info_of_their_own(tmp_path):
    path = write(tmp_path / "bag", ["/front/image", "/rear/image"], pictures=2, calibrated=["/front/camera_info"])
    cues = list(Tape(path, BagSettings()).cues())
    assert [cue.camera for cue in cues] == ["front", "rear", "front", "rear"]
    assert [cue.due_s for cue in cues] == pytest.approx([0.0, 0.01, 0.1, 0.11])
    assert [cue.info is not None for cue in cues] == [True, False, True, False]  # the first info also before it came


def test_window_of_time_begins_anew_at_zero(tmp_path):
    path = write(tmp_path / "bag", ["/front/image"], pictures=6)
    cues = list(Tape(path, BagSettings(start_s=0.2, stop_s=0.5)).cues())
    assert [cue.due_s for cue in cues] == pytest.approx([0.0, 0.1, 0.2])
    assert [cue.image.data[0] for cue in cues] == [2, 3, 4]


def test_loop_plays_the_beginning_again_and_again_at_any_rate(tmp_path):
    path = write(tmp_path / "bag", ["/front/image", "/rear/image"], pictures=3)
    cues = list(Tape(path, BagSettings()).loop(50.0, 4))
    assert [(cue.camera, cue.image.data[0]) for cue in cues if cue.camera == "front"] == [
        ("front", 0), ("front", 1), ("front", 2), ("front", 0),
    ]  # fmt: skip
    assert [cue.due_s for cue in cues] == pytest.approx([0, 0, 0.02, 0.02, 0.04, 0.04, 0.06, 0.06])


def test_truncated_bag_is_played_to_its_last_good_picture(tmp_path):
    path = write(tmp_path / "bag", ["/front/image"], pictures=6)
    (file,) = path.glob("*.mcap")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    tape = Tape(path, BagSettings())
    cues = list(tape.cues())
    assert 0 < len(cues) < 6
    assert tape.damage.incomplete


@pytest.mark.parametrize(
    ("topics", "settings", "message"),
    [
        (
            ["/front/image"],
            {"topics": ("/rear/image",)},
            "no picture topic /rear/image: topics with",
        ),
        (["/x/image", "/x/image/compressed"], {}, "/x/image is recorded raw and compressed: name one of both"),
        ([f"/c{index}/image" for index in range(9)], {}, "9 cameras: one node takes 8: name them by --topic"),
        (["/front/image"], {"start_s": 100.0}, "no pictures on /front/image in the time that is asked for"),
    ],
)
def test_what_cannot_be_played_is_told(tmp_path, topics, settings, message):
    path = write(tmp_path / "bag", topics)
    with pytest.raises(InputError, match=message):
        Tape(path, BagSettings(**settings)).firsts()


def test_error_of_the_reading_thread_comes_through():
    def items():
        yield 1
        raise InputError("broken off")

    taken = ahead(items(), 4)
    assert next(taken) == 1
    with pytest.raises(InputError, match="broken off"):
        next(taken)


def test_reading_thread_ends_when_nobody_takes_any_more():
    given = []

    def items():
        for number in range(1000):
            given.append(number)
            yield number

    taken = ahead(items(), 2)
    assert next(taken) == 0
    taken.close()  # returns when the thread has ended
    assert len(given) <= 5
