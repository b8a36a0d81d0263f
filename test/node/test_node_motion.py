"""Cameras whose place comes from TF, and a grid that remembers by odometry."""

from __future__ import annotations

import numpy as np
import pytest
import transforms

S = 10**9


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def cells(grid) -> np.ndarray:
    return np.array(grid.data, np.int8).reshape(grid.info.height, grid.info.width)


@pytest.fixture
def tf(ros, monkeypatch):
    """tf2_ros is installed; gives the buffer of the node that is made next."""
    from mfuser_ros.node import poses

    monkeypatch.setattr(poses, "tf2_ros", transforms)
    return lambda: transforms.Buffer.made[-1]


def transform(stamp_ns: int = 0, *, height: float = 1.5):
    """Of the front camera, which looks forward."""
    from geometry_msgs.msg import TransformStamped

    found = TransformStamped(child_frame_id="front_optical")
    found.header.frame_id = "base_link"
    found.header.stamp.sec, found.header.stamp.nanosec = divmod(stamp_ns, S)
    found.transform.translation.z = height
    turned = found.transform.rotation
    turned.x, turned.y, turned.z, turned.w = -0.5, 0.5, -0.5, 0.5
    return found


def test_static_transform_gives_the_grid_that_is_right_by_hand(bench, tf, road):
    bench = bench()
    tf().set_transform_static(transform())

    from_tf = cells(bench.segment_with_grid(road))

    assert {-1, 0, 100} == set(from_tf.reshape(-1).tolist())
    # the car ends 29.5 px and the road begins 30.5 px below the middle: 1.5 m * 300 px / 30 px = 15 m ahead
    assert from_tf[75, int((10.1 + 5) / 0.2)] == 0
    assert (from_tf[int((3.6 + 15) / 0.2), int((14.6 + 5) / 0.2) : int((15.3 + 5) / 0.2)] == 100).any()


def test_moving_camera_has_the_pose_of_the_pictures_stamp_and_no_grid_without(bench, tf, road):
    bench = bench(tf_timeout=0.0)
    begin = bench.now_ns()
    for step in range(3):
        tf().set_transform(transform(begin + step * S, height=1.5 + step))
    bench.send_info(*road.shape[:2])
    bench.graph.repeat(
        lambda: bench.segment(road, header=bench.header(stamp_ns=begin)), lambda: bench.grids, "no grid", 20
    )

    def first_occupied(stamp_ns: int) -> float:
        mask = bench.segment(road, header=bench.header(stamp_ns=stamp_ns))
        bench.wait(lambda: bench.grids[-1].header.stamp == mask.header.stamp, "no grid")
        columns = np.flatnonzero((cells(bench.grids[-1]) == 100).any(axis=0))
        return float(columns[0] * 0.2 - 5)

    # things stand 30 px below the middle: at ten times the height of the camera
    assert first_occupied(begin + S // 2) == pytest.approx(20.0, abs=0.5)
    assert first_occupied(begin + S) == pytest.approx(25.0, abs=0.85)  # one row is 25 m / 30
    grids = len(bench.grids)

    bench.segment(road, header=bench.header(stamp_ns=begin + 5 * S))

    bench.wait_for_status(levels()[1], "tf: no pose of front_optical in base_link at the picture's stamp")
    assert "calibration" in bench.values()["trouble_in"]
    assert len(bench.grids) == grids


def test_grid_remembers_by_odometry_what_no_picture_shows_any_more(bench, road, forward):
    """The vehicle drives 6 m; the road under it was seen before. Without odometry it is unknown."""
    from nav_msgs.msg import Odometry

    bench = bench(front__pose=forward, grid__decay=30.0, odometry_topic="odom", ground__max_range=1000.0)
    publisher = bench.graph.publisher(Odometry, "/odom")
    bench.graph.wait_for_match(publisher)
    empty = road.copy()
    empty[: len(road) // 2, :, 0] = 10
    empty[len(road) // 2 :, :, 0] = 0  # the car has gone
    bench.send_info(*road.shape[:2])

    def drive_to(x: float) -> np.ndarray:
        """Grid at this place; two messages of odometry hold the picture's stamp between them."""
        stamp_ns = bench.now_ns() + S
        bench._stamp_ns = stamp_ns + S

        def send() -> None:
            for offset_ns in (-50_000_000, 50_000_000):
                message = Odometry(child_frame_id="base_link", header=bench.header(stamp_ns=stamp_ns + offset_ns))
                message.pose.pose.position.x = x
                message.pose.pose.orientation.w = 1.0
                publisher.publish(message)
            bench.segment(empty, header=bench.header(stamp_ns=stamp_ns))

        grids = len(bench.grids)
        bench.graph.repeat(send, lambda: len(bench.grids) > grids and known(), f"no grid at {x} m", 20)
        return cells(bench.grids[-1])

    def known() -> bool:
        return "odometry" not in (bench.node._pipeline._cameras["front"].health._conditions)

    before = drive_to(0.0)
    after = drive_to(6.0)

    near = int((1.5 + 5) / 0.2)  # nearer than the picture shows: 1.5 m * 300 / 120 = 3.8 m
    assert before[75, near] == -1
    assert after[75, near] == 0  # was 7.5 m ahead
    assert (after[75, near : int((20 + 5) / 0.2)] == 0).all()


def test_missing_odometry_is_told_and_the_grid_is_that_of_the_picture(bench, road, forward):
    bench = bench(front__pose=forward, grid__decay=5.0, odometry_topic="/somewhere/odom")

    grid = bench.segment_with_grid(road)

    assert 0 in grid.data
    bench.wait_for_status(levels()[1], "odometry: nothing has come: check odometry_topic")


def test_autowares_mask_is_published_for_those_who_listen(bench):
    from sensor_msgs.msg import Image
    from stand_in import picture

    bench = bench(autoware_mask=True, grid__enabled=False)
    runs = bench.graph.collect(Image, "/mfuser/front/mask_rle")
    bench.wait_until_connected("/mfuser/front/mask_rle")
    rgb = picture()

    mask = bench.segment(rgb)
    bench.wait(lambda: runs, "no run lengths")

    (message,) = runs
    assert message.header == mask.header
    assert (message.height, message.width, message.step, message.encoding) == (48, 64, 64, "mono8")
    data = np.array(message.data, np.uint8).tobytes()
    records = [(data[at], int.from_bytes(data[at + 1 : at + 5], "little")) for at in range(0, len(data), 5)]
    decoded = np.concatenate([np.full(length, value) for value, length in records])
    ids = np.array(mask.data)
    for theirs, ours in ((9, [0]), (3, [3 + 1, 5]), (7, [13, 14, 15, 16]), (0, [255])):
        np.testing.assert_array_equal(decoded == theirs, np.isin(ids, ours))


def test_output_size_changes_what_is_published_and_not_the_grid(bench, road, forward):
    from sensor_msgs.msg import Image

    bench = bench(front__pose=forward, front__output_size=[120, 200])
    overlays = bench.graph.collect(Image, "/mfuser/front/overlay")
    bench.wait_until_connected("/mfuser/front/overlay")

    grid = cells(bench.segment_with_grid(road))

    mask = bench.masks[-1]
    bench.wait(lambda: bench.infos and overlays and bench.confidences[-1].header == mask.header, "not all outputs")
    for message in (mask, bench.confidences[-1], overlays[0], bench.infos[-1]):
        assert (message.height, message.width) == (120, 200)
    k = np.reshape(bench.infos[-1].k, (3, 3))  # of 320x240: 300 px, the middle at 159.5, 119.5
    np.testing.assert_allclose(k, [[187.5, 0, 99.5], [0, 150, 59.5], [0, 0, 1]])
    # the car's edge is seen in all 240 rows: with 120 it would stand half a metre elsewhere
    along = grid[int((3.6 + 15) / 0.2)]
    occupied_x = np.flatnonzero(along == 100) * 0.2 - 5
    assert 14.5 < occupied_x[0] <= 14.75
    bench.segmenter.error = ValueError("no result")
    failed = bench.segment(road)
    assert (failed.height, failed.width, set(failed.data)) == (120, 200, {255})
