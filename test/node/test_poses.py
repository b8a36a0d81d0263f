"""Poses of cameras from TF and from parameters."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import transforms

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.calibration import pose_matrix, quaternion_matrix
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.settings import settings

FORWARD = [0.0, 0.0, 1.5, -math.pi / 2, 0.0, -math.pi / 2]
S = 1_000_000_000


@pytest.fixture
def tf(ros, monkeypatch):
    """tf2_ros is installed."""
    from mfuser_ros.node import poses

    monkeypatch.setattr(poses, "tf2_ros", transforms)
    return transforms


def transform(x: float = 0.0, z: float = 1.5, *, stamp_ns: int = 0, upwards: bool = False):
    """Of an optical frame that looks forward, in base_link."""
    from geometry_msgs.msg import TransformStamped

    found = TransformStamped(child_frame_id="front_optical")
    found.header.frame_id = "base_link"
    found.header.stamp.sec, found.header.stamp.nanosec = divmod(stamp_ns, S)
    found.transform.translation.x, found.transform.translation.z = x, z
    turned = found.transform.rotation
    # a turn by 120 degrees about (-1, 1, -1): x goes to -y, y to -z, z to x
    turned.x, turned.y, turned.z, turned.w = (0.0, 0.0, 0.0, 1.0) if upwards else (-0.5, 0.5, -0.5, 0.5)
    return found


def made(**values):
    """Poses of a node with these parameters (`__` stands for a dot), and its camera."""
    from mfuser_ros.node.poses import Poses

    found = settings({name.replace("__", "."): value for name, value in values.items()})
    poses = Poses(None, found)
    poses.start()
    return poses, found.cameras[0]


def look(poses, camera, stamp_ns=5 * S, *, frame="front_optical", timeout_s=0.0):
    return poses.of(camera, frame, stamp_ns, timeout_s=timeout_s, ground_z=0.0)


def test_quaternion_of_a_forward_camera_is_the_pose_of_the_parameter():
    np.testing.assert_allclose(quaternion_matrix(-0.5, 0.5, -0.5, 0.5), pose_matrix(FORWARD)[:3, :3], atol=1e-12)
    np.testing.assert_allclose(quaternion_matrix(-2, 2, -2, 2), pose_matrix(FORWARD)[:3, :3], atol=1e-12)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (math.nan, 0, 0, 1)])
def test_quaternion_that_is_no_rotation_is_refused(quaternion):
    with pytest.raises(ConfigurationError, match="publish a quaternion of length 1"):
        quaternion_matrix(*quaternion)


def test_without_tf2_the_parameter_holds(ros, monkeypatch):
    from mfuser_ros.node import poses

    monkeypatch.setattr(poses, "tf2_ros", None)

    np.testing.assert_allclose(look(*made(front__pose=FORWARD)), pose_matrix(FORWARD))
    assert look(*made()).kind == "no_pose"
    with pytest.raises(ConfigurationError, match="tf2_ros cannot be imported"):
        made(pose_source="tf")


def test_static_transform_is_looked_up_once(tf):
    poses, camera = made()
    buffer = tf.Buffer.made[-1]
    buffer.set_transform_static(transform(x=2.0))

    first = look(poses, camera, frame="/front_optical")
    lookups = buffer.lookups
    for stamp_ns in (0, 1, None, 9 * S):
        np.testing.assert_array_equal(look(poses, camera, stamp_ns), first)

    assert buffer.lookups == lookups
    np.testing.assert_allclose(first, pose_matrix([2.0, *FORWARD[1:]]), atol=1e-12)


def test_moving_camera_is_looked_up_at_the_stamp_of_the_picture(tf):
    poses, camera = made()
    buffer = tf.Buffer.made[-1]
    buffer.set_transform(transform(x=1.0, stamp_ns=4 * S))
    buffer.set_transform(transform(x=2.0, stamp_ns=6 * S))

    assert look(poses, camera, 4 * S)[0, 3] == pytest.approx(1.0)
    assert look(poses, camera, 5 * S)[0, 3] == pytest.approx(1.5)
    for stamp_ns in (7 * S, 3 * S):
        fault = look(poses, camera, stamp_ns)
        assert (fault.level, fault.kind) == (Level.WARN, "tf")
        assert "front_optical" in fault.text
    for stamp_ns in (0, None):
        assert "the picture has no stamp" in look(poses, camera, stamp_ns).text


def test_transform_that_is_on_its_way_is_waited_for(tf):
    poses, camera = made()
    buffer = tf.Buffer.made[-1]
    buffer.set_transform(transform(x=1.0, stamp_ns=4 * S))
    timer = threading.Timer(0.05, buffer.set_transform, [transform(x=3.0, stamp_ns=6 * S)])
    timer.start()

    found = look(poses, camera, 5 * S, timeout_s=20.0)

    timer.join()
    assert found[0, 3] == pytest.approx(2.0)


def test_camera_that_tf_does_not_know_has_the_pose_of_its_parameter_under_auto(tf):
    poses, camera = made(front__pose=FORWARD)
    buffer = tf.Buffer.made[-1]
    np.testing.assert_allclose(look(poses, camera), pose_matrix(FORWARD))

    buffer.set_transform(transform(x=1.0, stamp_ns=4 * S))
    buffer.set_transform(transform(x=1.0, stamp_ns=6 * S))
    assert look(poses, camera, 5 * S)[0, 3] == pytest.approx(1.0)

    # TF has told it once: from then on there is no stale geometry
    assert isinstance(look(poses, camera, 9 * S), Fault)


def test_sources_can_be_chosen(tf):
    poses, camera = made(front__pose=FORWARD, pose_source="tf")
    assert look(poses, camera).kind == "tf"
    tf.Buffer.made[-1].set_transform_static(transform(x=7.0))
    assert look(poses, camera)[0, 3] == 7.0
    buffers = len(tf.Buffer.made)
    poses, camera = made(front__pose=FORWARD, pose_source="parameter")
    assert len(tf.Buffer.made) == buffers
    assert look(poses, camera)[0, 3] == 0.0


@pytest.mark.parametrize("change", [{"upwards": True}, {"z": -1.0}])
def test_transform_from_which_no_ground_is_seen_is_refused(tf, change):
    poses, camera = made()
    tf.Buffer.made[-1].set_transform_static(transform(**change))

    fault = look(poses, camera)

    assert (fault.level, fault.kind) == (Level.ERROR, "pose")
    assert fault.text.startswith("TF of front_optical ")


def test_jump_in_time_forgets_what_moved_and_keeps_what_is_static(tf):
    poses, camera = made()
    buffer = tf.Buffer.made[-1]
    for stamp_ns in (4 * S, 6 * S):
        buffer.set_transform(transform(stamp_ns=stamp_ns))
    assert not isinstance(look(poses, camera), Fault)

    poses.clear()
    assert isinstance(look(poses, camera), Fault)
    buffer.set_transform_static(transform())
    poses.clear()
    assert not isinstance(look(poses, camera), Fault)
