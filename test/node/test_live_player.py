"""The player that does not wait for answers, against a stand-in node in a process of its own."""

import threading
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the [ros] extra")

from mfuser_ros.bags import BagWriter
from mfuser_ros.errors import NodeError
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.node.live_player import WARM_UP_MASKS, LivePlayer
from mfuser_ros.node.tape import Tape

DEADLINE_S = 40.0  # of the whole machine under load; reached only in failure
START_NS = 1_700_000_000_000_000_000
PICTURES = 6
INTERVAL_S = 0.2


@pytest.fixture
def tape(tmp_path):
    """Six raw pictures of one camera, five a second."""
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(PICTURES):
            picture = np.full((48, 64, 3), 40 * index, np.uint8)
            stamp_ns = START_NS + index * int(INTERVAL_S * 1e9)
            bag.image("/front/image_raw", picture, encoding="rgb8", stamp_ns=stamp_ns, frame_id="front")
    return Tape(tmp_path / "bag", BagSettings())


def joined(tape, **options):
    """A player that has found the node."""
    player = LivePlayer(tape.cameras, **options)
    try:
        player.wait_for_node(deadline_s=DEADLINE_S)
    except BaseException:
        player.close()
        raise
    return player


def test_every_picture_is_sent_when_due_and_gets_the_mask_of_its_own_stamp(tape, stand_in):
    stand_in("--reliable")
    counts = []
    with joined(tape) as player:
        assert player.warm_up(tape.firsts(), deadline_s=DEADLINE_S) >= WARM_UP_MASKS
        played = player.play(tape.cues(), on_sent=counts.append)["front"]
    assert counts == [1, 2, 3, 4, 5, 6]
    assert [picture.due_s for picture in played] == pytest.approx([index * INTERVAL_S for index in range(PICTURES)])
    for picture in played:
        assert picture.sent_s >= picture.due_s
        assert picture.mask_s > picture.sent_s
    assert player.complaints.values == {"model": "stand-in"}


def test_second_run_counts_its_own_masks(tape, stand_in):
    stand_in("--reliable")
    with joined(tape) as player:
        first = player.play(tape.loop(10.0, 4))["front"]
        second = player.play(tape.loop(20.0, 3))["front"]
    assert [picture.due_s for picture in first] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [picture.due_s for picture in second] == pytest.approx([0.0, 0.05, 0.1])
    assert all(picture.mask_s is not None for picture in [*first, *second])


def test_picture_without_a_mask_is_a_drop_by_its_stamp(tape, stand_in, monkeypatch):
    monkeypatch.setattr("mfuser_ros.node.live_player.DRAIN_S", 1.0)
    stand_in("--reliable", "--silent-at", "2")
    with joined(tape) as player:
        played = player.play(tape.cues())["front"]
    assert [picture.mask_s is None for picture in played] == [False, False, True, False, False, False]


def test_last_picture_without_a_mask_is_not_waited_for_for_ever(tape, stand_in, monkeypatch):
    monkeypatch.setattr("mfuser_ros.node.live_player.DRAIN_S", 1.0)
    stand_in("--reliable", "--silent-at", str(PICTURES - 1))
    with joined(tape) as player:
        played = player.play(tape.cues())["front"]
    assert [picture.mask_s is None for picture in played] == [False] * (PICTURES - 1) + [True]


def test_late_picture_delays_the_rest_instead_of_a_burst(tape, stand_in):
    stand_in("--reliable")

    def held_up():
        for index, cue in enumerate(tape.cues()):
            if index == 2:
                threading.Event().wait(3 * INTERVAL_S)  # as a slow disk
            yield cue

    with joined(tape) as player:
        played = player.play(held_up())["front"]
    assert played[2].sent_s - played[2].due_s > INTERVAL_S
    intervals = [after.sent_s - before.sent_s for before, after in pairwise(played[2:])]
    assert min(intervals) > 0.45 * INTERVAL_S  # half an interval may be made up for, no more


def test_silence_in_the_warm_up_is_told_with_the_topic(tape, stand_in):
    stand_in("--reliable", "--silent-from", "0")
    with (
        joined(tape) as player,
        pytest.raises(NodeError, match="no mask on /mfuser/front/mask after 2 s: "),
    ):
        player.warm_up(tape.firsts(), deadline_s=2.0)


def test_node_that_falls_silent_is_given_up_while_pictures_are_left(tape, stand_in):
    stand_in("--reliable", "--silent-from", "3")
    with (
        joined(tape, stall_s=1.0) as player,
        pytest.raises(NodeError, match=r"no mask for 1 s while \d+ pictures were sent"),
    ):
        player.play(tape.loop(5.0, 1000))


def test_gap_in_the_recording_is_no_silence_of_the_node(tape, stand_in):
    stand_in("--reliable", "--silent-at", "2")

    def gap_after_the_dropped_picture():
        for index, cue in enumerate(tape.loop(10.0, 6)):
            yield cue._replace(due_s=cue.due_s + (1.5 if index > 2 else 0.0))

    with joined(tape, stall_s=1) as player:
        played = player.play(gap_after_the_dropped_picture())["front"]
    assert [picture.mask_s is None for picture in played] == [False, False, True, False, False, False]


def test_node_that_dies_ends_the_run_at_once(tape, stand_in):
    process = stand_in("--reliable", "--die-at", "3")

    def still_alive():
        if process.poll() is not None:
            raise NodeError(f"exit code {process.returncode}")

    with joined(tape, still_alive=still_alive) as player, pytest.raises(NodeError, match="exit code 3"):
        player.play(tape.loop(5.0, 1000))


def test_missing_topic_is_named_before_the_first_picture(tape, stand_in):
    stand_in("--mute", "front/mask")
    with (
        LivePlayer(tape.cameras) as player,
        pytest.raises(NodeError, match=r"no publisher of /mfuser/front/mask after \d+ s \(nodes seen: /mfuser[,)]"),
    ):
        player.wait_for_node(deadline_s=6.0)


def test_failed_configuration_is_told_at_once(tape, stand_in):
    stand_in("--fail")
    with (
        LivePlayer(tape.cameras) as player,
        pytest.raises(NodeError, match="the node is not ready: configure failed: no weights"),
    ):
        player.wait_for_node(deadline_s=DEADLINE_S)
