import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the [ros] extra")

from mfuser_ros.bags import BagReader, CameraCalibration, Shot, make_bag
from mfuser_ros.errors import InputError, NodeError
from mfuser_ros.node.player import Player

DEADLINE_S = 40.0  # of the whole machine under load; reached only in failure
START_NS = 1_700_000_000_000_000_000


def make_frames(tmp_path, *, jpeg_quality=95, calibrated=True):
    """Three frames of 64x48 whose left 16, 32, 48 columns are white."""
    pictures = np.zeros((3, 48, 64, 3), np.uint8)
    for index in range(3):
        pictures[index, :, : 16 * (index + 1)] = 255
    calibration = None
    if calibrated:
        calibration = CameraCalibration(
            64, 48, "plumb_bob", np.zeros(5), np.diag([50.0, 50, 1]), np.eye(3), np.eye(3, 4)
        )
    path = tmp_path / "bag"
    made = make_bag(
        map(Shot, pictures),
        path,
        period_ns=120_000_000,
        start_ns=START_NS,
        calibration=calibration,
        jpeg_quality=jpeg_quality,
        frame_id="front_camera_optical_frame",
    )
    with BagReader(path) as bag:
        return list(bag.frames(made.picture_topic))


def test_every_frame_gets_the_answer_with_its_own_stamp(tmp_path, stand_in):
    stand_in()
    frames = make_frames(tmp_path)
    with Player(image_topic="/front/image_raw", compressed=True, outputs=("confidence", "grid", "contacts")) as player:
        player.wait_for_node(deadline_s=DEADLINE_S)
        answers = list(player.play(frames, deadline_s=DEADLINE_S))

    assert [answer.frame.stamp_ns for answer in answers] == [START_NS, START_NS + 120_000_000, START_NS + 240_000_000]
    for index, answer in enumerate(answers):
        assert answer.mask.shape == (48, 64)
        edge = 16 * (index + 1)
        assert (answer.mask[:, : edge - 2] == 0).all()
        assert (answer.mask[:, edge + 2 :] == 255).all()
        assert answer.mask_frame_id == "front_camera_optical_frame"
        assert answer.round_trip_ms > 0
        np.testing.assert_array_equal(answer.confidence, answer.mask)
        np.testing.assert_array_equal(answer.grid.occupancy, [[0, 0, 100], [-1, 0, 0]])
        assert answer.grid[1:] == (0.5, -1.0, -2.0, "base_link")
        np.testing.assert_allclose(answer.contacts, [[7.5, -1.0, 0.3, 13.0]])
    assert player.class_map == '{"version": 1}'
    assert player.times["processing_time_ms"] in ([1.5] * 2, [1.5] * 3)  # the last may come after the last mask
    assert player.diagnostics == {"model": "stand-in"}


def test_raw_frames_are_played_on_the_raw_topic(tmp_path, stand_in):
    stand_in()
    frames = make_frames(tmp_path, jpeg_quality=None, calibrated=False)
    with Player(image_topic="/front/image_raw", compressed=False) as player:
        player.wait_for_node(deadline_s=DEADLINE_S)
        answers = list(player.play(frames, deadline_s=DEADLINE_S))

    assert [int((answer.mask == 0).sum()) for answer in answers] == [48 * 16, 48 * 32, 48 * 48]
    assert answers[0].grid is None


def test_silent_node_is_named_with_topic_and_frame(tmp_path, stand_in):
    stand_in("--silent-at", "1")
    frames = make_frames(tmp_path)
    with Player(image_topic="/front/image_raw", compressed=True) as player:
        player.wait_for_node(deadline_s=DEADLINE_S)
        answers = player.play(frames, deadline_s=2.0)
        assert next(answers).frame.index == 0
        with pytest.raises(NodeError, match=r"frame 1 \(stamp 1700000000120000000 ns\): nothing on /mfuser/front/mask"):
            next(answers)


def test_missing_topic_is_named_before_the_first_frame(tmp_path, stand_in):
    stand_in("--mute", "front/confidence")
    with (
        Player(image_topic="/front/image_raw", compressed=True, outputs=("confidence",)) as player,
        pytest.raises(NodeError, match=r"no publisher of /mfuser/front/confidence after 6 s \(nodes seen: /mfuser[,)]"),
    ):
        player.wait_for_node(deadline_s=6.0)


def test_failed_configuration_is_told_at_once(tmp_path, stand_in):
    stand_in("--fail")
    with (
        Player(image_topic="/front/image_raw", compressed=True) as player,
        pytest.raises(NodeError, match="the node is not ready: configure failed: no weights"),
    ):
        player.wait_for_node(deadline_s=DEADLINE_S)


def test_dead_node_ends_the_wait_at_once(tmp_path, stand_in):
    process = stand_in("--die-at", "1")

    def still_alive():
        if process.poll() is not None:
            raise NodeError(f"exit code {process.returncode}")

    frames = make_frames(tmp_path)
    with Player(image_topic="/front/image_raw", compressed=True, still_alive=still_alive) as player:
        player.wait_for_node(deadline_s=DEADLINE_S)
        answers = player.play(frames, deadline_s=DEADLINE_S)
        next(answers)
        with pytest.raises(NodeError, match="exit code 3"):
            next(answers)


def test_stamp_that_does_not_rise_is_refused(tmp_path, stand_in):
    stand_in()
    frames = make_frames(tmp_path)
    with Player(image_topic="/front/image_raw", compressed=True) as player:
        player.wait_for_node(deadline_s=DEADLINE_S)
        answers = player.play([frames[1], frames[1]], deadline_s=DEADLINE_S)
        next(answers)
        with pytest.raises(InputError, match="frame 1: stamp 1700000000120000000 ns is not after the one before"):
            next(answers)
