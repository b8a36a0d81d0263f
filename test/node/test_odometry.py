"""Where the vehicle was at a picture's stamp."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mfuser_ros.node.health import Fault
from mfuser_ros.node.odometry import KEPT, Odometry

MS = 1_000_000


def message(stamp_ns: int, x: float = 0.0, yaw: float = 0.0, child: str = "base_link", **rotation: float):
    from nav_msgs.msg import Odometry as Message

    found = Message(child_frame_id=child)
    found.header.stamp.sec, found.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    found.pose.pose.position.x = x
    found.pose.pose.orientation.z, found.pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    for name, value in rotation.items():
        setattr(found.pose.pose.orientation, name, value)
    return found


@pytest.fixture
def odometry(ros):
    """At 1 s it stands at 0 m, at 1.1 s at 2 m turned by 0.2 rad."""
    found = Odometry("base_link")
    found.add(message(1000 * MS))
    found.add(message(1100 * MS, 2.0, 0.2))
    return found


def yaw(T: np.ndarray) -> float:
    return math.atan2(T[1, 0], T[0, 0])


@pytest.mark.parametrize(
    ("stamp_ms", "x", "turn"), [(1000, 0.0, 0.0), (1025, 0.5, 0.05), (1100, 2.0, 0.2), (1150, 3.0, 0.3)]
)
def test_motion_is_straight_and_even_between_messages_and_shortly_after(odometry, stamp_ms, x, turn):
    T = odometry.pose_at(stamp_ms * MS)

    assert T[0, 3] == pytest.approx(x)
    assert yaw(T) == pytest.approx(turn)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("stamp", [999 * MS, 1201 * MS, 0, None])
def test_time_without_motion_is_told(odometry, stamp):
    fault = odometry.pose_at(stamp)

    assert isinstance(fault, Fault)
    assert fault.kind == "odometry"


def test_long_gap_is_not_bridged(odometry):
    odometry.add(message(1400 * MS, 8.0))

    assert isinstance(odometry.pose_at(1200 * MS), Fault)
    assert odometry.pose_at(1400 * MS)[0, 3] == 8.0


def test_message_out_of_order_is_left_out(odometry):
    odometry.add(message(1050 * MS, 99.0))

    assert odometry.pose_at(1050 * MS)[0, 3] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"child": "rear_axle"}, "odometry is of 'rear_axle', the grid of 'base_link'"),
        ({"w": 0.0}, "publish a quaternion of length 1"),
        (None, "nothing has come"),
    ],
)
def test_what_cannot_be_used_is_named(ros, bad, text):
    odometry = Odometry("/base_link")
    if bad is not None:
        odometry.add(message(1000 * MS, **bad))

    assert text in odometry.pose_at(1000 * MS).text


def test_only_the_newest_are_kept(ros):
    odometry = Odometry("base_link")
    for number in range(3 * KEPT):
        odometry.add(message((number + 1) * 10 * MS, float(number)))

    assert len(odometry._stamps) <= KEPT
    assert odometry.pose_at(3 * KEPT * 10 * MS)[0, 3] == 3 * KEPT - 1
    assert isinstance(odometry.pose_at(10 * MS), Fault)


def test_cleared_odometry_knows_nothing(odometry):
    odometry.clear()

    assert isinstance(odometry.pose_at(1050 * MS), Fault)
