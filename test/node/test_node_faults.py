"""Bad input and failing parts: one clear line, nothing wrong published, and the node lives."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from stand_in import OutOfMemoryError, picture

from mfuser_ros.errors import InferenceError


def cells(grid) -> np.ndarray:
    return np.array(grid.data, np.int8)


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


RGB = picture()


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"width": 0}, 1, "bad_image: image of 0x48"),
        ({"height": 0}, 1, "bad_image: image of 64x0"),
        ({"data": b""}, 1, "bad_image: image of 64x48 with 0 bytes"),
        ({"step": 191}, 1, "bad_image: step 191 is less than a row"),
        ({"data": RGB.tobytes()[:-1]}, 1, "bad_image: data has 9215 bytes"),
        ({"encoding": "16UC1"}, 2, "encoding: encoding '16UC1' is not accepted (may be a depth image)"),
        ({"encoding": "32FC1"}, 2, "encoding: encoding '32FC1'"),
        ({"encoding": "8UC1"}, 2, "encoding: encoding '8UC1'"),
        ({"encoding": "what"}, 2, "encoding: encoding 'what'"),
        ({"width": 9000, "step": 27000}, 2, "too_large: image of 9000x48"),
    ],
)
def test_bad_image_gives_no_mask_and_one_line(bench, changes, level, text):
    bench = bench(grid__enabled=False)
    bench.segment(RGB)

    bench.send(RGB, **changes)
    status = bench.wait_for_status(levels()[level], text)
    bench.send(RGB, **changes)
    bench.wait(lambda: bench.values()["dropped_bad"] == "2", "two bad pictures")
    good = bench.segment(RGB)

    assert [mask.header.stamp for mask in bench.masks] == [bench.masks[0].header.stamp, good.header.stamp]
    assert "\n" not in status.message
    assert len(bench.lines(text)) == 1
    assert text in bench.values()["last_error"]


def test_fault_of_one_picture_is_over_once_it_was_told(bench):
    bench = bench(grid__enabled=False)
    bench.segment(RGB)
    bench.send(RGB, encoding="16UC1")
    bench.wait_for_status(levels()[2], "encoding: ")

    status = bench.wait_for_status(levels()[0], "running")

    assert "16UC1" in {entry.key: entry.value for entry in status.values}["last_error"]


def test_nonsense_without_end_does_not_fill_the_log(graph):
    from types import SimpleNamespace

    from mfuser_ros.node.camera import MAX_TOLD, Camera
    from mfuser_ros.node.health import CameraHealth, Limits
    from mfuser_ros.node.images import ImageError
    from mfuser_ros.node.poses import Poses
    from mfuser_ros.node.settings import settings
    from mfuser_ros.node.topics import Topics

    health = CameraHealth("cpu", "small", "")
    camera = Camera(
        graph.node, Topics(graph.node, print), settings({}).cameras[0], health, Poses(graph.node, settings({}))
    )

    told = [camera.warn_once(f"kind {number}", "a warning") for number in range(3 * MAX_TOLD)]
    for number in range(200):
        camera.reject(ImageError("encoding", "nonsense"), SimpleNamespace(encoding=f"nonsense{number}"))

    assert sum(told) == MAX_TOLD
    assert health.report(0, Limits(1, 1, 1), regular=True).values["dropped_bad"] == "200"


def test_bad_image_does_not_push_out_a_good_one_that_waits(bench):
    bench = bench(grid__enabled=False)
    bench.segmenter.gate.clear()
    bench.segmenter.entered.clear()
    bench.send(picture(seed=1))
    assert bench.segmenter.entered.wait(10)
    good = bench.send(picture(seed=2))
    bench.wait(lambda: bench.values().get("frames_in") == "2", "the second picture")
    bench.send(RGB, encoding="16UC1")
    bench.wait(lambda: bench.values().get("frames_in") == "3", "the third picture")
    bench.segmenter.gate.set()

    bench.wait(lambda: len(bench.masks) == 2, "two masks")

    assert bench.masks[-1].header == good


@pytest.mark.parametrize(
    ("data", "text", "level", "expected"),
    [
        (b"no picture at all", "jpeg", 1, "bad_image: CompressedImage of 17 bytes is no JPEG or PNG"),
        (cv2.imencode(".jpg", RGB)[1].tobytes()[:-300], "jpeg", 1, "is truncated or broken"),
        (cv2.imencode(".png", RGB)[1].tobytes(), "16UC1; compressedDepth png", 2, "is a depth image"),
    ],
    ids=["no picture", "truncated", "depth"],
)
def test_bad_compressed_image_gives_no_mask_and_one_line(bench, data, text, level, expected):
    bench = bench(front__transport="compressed", grid__enabled=False)

    bench.send_compressed(data, text)
    bench.wait_for_status(levels()[level], expected)
    good = bench.send_compressed(cv2.imencode(".png", RGB[..., ::-1])[1].tobytes())
    bench.wait(lambda: bench.masks, "no mask")

    assert [mask.header for mask in bench.masks] == [good]
    assert len(bench.lines(expected)) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InferenceError("small: scores are not numbers"), "inference: small: scores are not numbers"),
        (
            OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
            "inference: OutOfMemoryError: CUDA out of memory.",
        ),
        (ValueError("shapes"), "inference: ValueError: shapes"),
    ],
    ids=["not a number", "out of memory", "exception"],
)
def test_failing_network_gives_an_unknown_mask_and_grid_until_it_succeeds(bench, road, forward, error, text):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    grids = len(bench.grids)
    bench.segmenter.error = error

    mask = bench.segment(road)
    bench.wait(lambda: len(bench.grids) > grids, "no grid")
    bench.wait(lambda: bench.confidences[-1].header == mask.header, "no confidence")
    status = bench.wait_for_status(levels()[2], text)

    assert set(mask.data) == {255}
    assert (mask.height, mask.width) == road.shape[:2]
    assert set(bench.confidences[-1].data) == {0}
    assert set(bench.grids[-1].data) == {-1}
    assert bench.grids[-1].header.stamp == mask.header.stamp
    assert "\n" not in status.message
    bench.segment(road)
    assert len(bench.lines(text)) == 1

    bench.segmenter.error = None
    good = bench.segment(road)
    bench.wait(lambda: bench.grids[-1].header.stamp == good.header.stamp, "no grid")
    bench.wait(lambda: text not in bench.status().message, "the fault is over")
    assert 0 in good.data
    assert 0 in bench.grids[-1].data
    assert bench.values()["dropped_bad"] == "0"


def test_result_of_another_size_is_a_failure(bench, monkeypatch):
    from stand_in import StandIn

    segment = StandIn.__call__
    monkeypatch.setattr(StandIn, "__call__", lambda self, rgb: segment(self, rgb[:-1]))
    bench = bench(grid__enabled=False)

    mask = bench.segment(RGB)

    assert set(mask.data) == {255}
    bench.wait_for_status(levels()[2], "inference: result is uint8 (47, 64) for a picture of (48, 64)")


def test_without_camera_info_there_are_masks_but_no_grid(bench, road, forward):
    bench = bench(front__pose=forward)

    for _ in range(3):
        bench.segment(road)
    bench.wait_for_status(levels()[1], "no_camera_info: nothing on /front/camera_info")

    assert bench.grids == []
    assert bench.infos == []
    bench.segment_with_grid(road)
    bench.wait(lambda: "no_camera_info" not in bench.status().message, "the fault is over")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"k": [0.0] * 9}, "k[0] is 0, the camera is not calibrated"),
        ({"k": [math.nan] * 9}, "camera_info.k holds a number that is not finite"),
        ({"k": [-60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]}, "focal lengths -60 and 60"),
        ({"distortion_model": "fancy"}, "'fancy' is unknown"),
        ({"d": [0.0] * 7}, "camera_info.d has 7 numbers"),
        ({"binning_x": 1000}, "camera size 0x240"),
    ],
)
def test_invalid_camera_info_takes_the_grid_back_once_and_there_is_none_until_a_valid_one(
    bench, road, forward, changes, text
):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    grids, infos = len(bench.grids), len(bench.infos)

    bench.send_info(*road.shape[:2], **changes)
    status = bench.wait_for_status(levels()[2], text)
    bench.wait(lambda: len(bench.grids) > grids, "the latched grid stands")
    masks = [bench.segment(road) for _ in range(3)]

    assert len(bench.grids) == grids + 1
    assert set(bench.grids[-1].data) == {-1}
    assert bench.grids[-1].header.stamp not in [mask.header.stamp for mask in masks]
    assert len(bench.infos) == infos
    assert len(bench.lines(text)) == 1
    assert "\n" not in status.message
    bench.segment_with_grid(road)


def test_grid_is_taken_back_with_the_next_picture_where_camera_info_was_lost_during_work(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    bench.segmenter.gate.clear()
    bench.segmenter.entered.clear()
    grids = len(bench.grids)
    bench.send(road)
    assert bench.segmenter.entered.wait(10)

    bench.send_info(*road.shape[:2], k=[0.0] * 9)
    bench.wait_for_status(levels()[2], "calibration: ")
    assert len(bench.grids) == grids
    bench.segmenter.gate.set()

    bench.wait(lambda: len(bench.grids) > grids, "the latched grid stands")
    assert set(bench.grids[grids].data) == {-1}


def test_grid_that_no_picture_confirms_is_taken_back_though_pictures_go_on(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    grids = len(bench.grids)
    assert bench.set_parameters(diagnostics__stale_after=0.3)[0].successful

    # of another size than camera_info says: masks, but no grids
    bench.graph.repeat(lambda: bench.send(road[:200]), lambda: len(bench.grids) > grids, "the latched grid stands", 20)
    for _ in range(3):
        bench.segment(road[:200])

    assert [set(grid.data) for grid in bench.grids[grids:]] == [{-1}]


def test_camera_info_of_another_size_gives_no_grid(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    grids = len(bench.grids)

    bench.segment(road[:200])

    bench.wait_for_status(levels()[1], "size_mismatch: camera_info is for 320x240, the picture 320x200")
    assert len(bench.grids) == grids


def test_picture_without_a_frame_gives_no_grid_unless_a_parameter_names_it(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    grids = len(bench.grids)

    mask = bench.segment(road, header=bench.header(frame=""))

    assert mask.header.frame_id == ""
    bench.wait_for_status(levels()[1], "frame_id: pictures name no frame: set front.frame_id")
    assert len(bench.grids) == grids


def test_frame_of_a_parameter_serves_pictures_without_one(bench, road, forward):
    bench = bench(front__pose=forward, front__frame_id="front_optical")

    grid = bench.segment_with_grid(road, header=bench.header(frame=""))

    assert 0 in grid.data
    assert bench.masks[-1].header.frame_id == ""


def test_without_a_pose_there_are_masks_but_no_grid(bench, road):
    bench = bench()
    bench.send_info(*road.shape[:2])

    bench.graph.repeat(lambda: bench.segment(road), lambda: bench.infos, "no camera_info", 10)

    bench.wait_for_status(levels()[1], "no_pose: the pose of the camera is not known: set front.pose")
    assert bench.grids == []


def test_frames_of_picture_and_camera_info_that_differ_are_warned_of_once(bench, road, forward):
    bench = bench(front__pose=forward)

    for _ in range(3):
        bench.segment_with_grid(road, header=bench.header(frame="/other"))

    assert len(bench.lines("camera_info is of frame 'front_optical', the picture of '/other', which is taken")) == 1


def test_slash_before_a_frame_is_no_difference(bench, road, forward):
    bench = bench(front__pose=forward)

    bench.segment_with_grid(road, header=bench.header(frame="/front_optical"))

    assert bench.lines("camera_info is of frame") == []


def test_silent_camera_takes_back_its_grid_once(bench, road, forward):
    bench = bench(front__pose=forward)
    stamp = bench.segment_with_grid(road).header.stamp
    grids = len(bench.grids)

    assert bench.set_parameters(diagnostics__stale_after=0.3)[0].successful
    bench.wait(lambda: len(bench.grids) > grids, "the grid stands")
    bench.wait_for_status(levels()[2], "silent: no picture")
    bench.wait_for_status(levels()[2], "silent: no picture")

    assert len(bench.grids) == grids + 1
    assert set(bench.grids[-1].data) == {-1}
    assert bench.grids[-1].header.stamp != stamp
    assert bench.grids[-1].header.frame_id == "base_link"
    assert bench.set_parameters(diagnostics__stale_after=60.0)[0].successful
    assert 0 in bench.segment_with_grid(road).data  # and it comes back with the pictures


def test_grid_is_not_taken_back_while_a_picture_is_in_work(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    bench.segmenter.gate.clear()
    bench.segmenter.entered.clear()
    header = bench.send(road)
    assert bench.segmenter.entered.wait(10)
    grids = len(bench.grids)

    assert bench.set_parameters(diagnostics__stale_after=0.3)[0].successful
    bench.wait_for_status(levels()[2], "silent")
    assert len(bench.grids) == grids
    bench.segmenter.gate.set()

    bench.wait(lambda: len(bench.grids) > grids, "no grid")
    assert bench.grids[grids].header.stamp == header.stamp
    assert 0 in bench.grids[grids].data


def test_camera_that_never_sends_is_told(bench):
    bench = bench(diagnostics__stale_after=0.3)

    bench.wait_for_status(levels()[2], "silent: no picture for 0.3 s or more")

    assert bench.grids == []


def test_older_picture_is_dropped(bench):
    bench = bench(grid__enabled=False)
    first = bench.segment(RGB).header
    stamp_ns = first.stamp.sec * 10**9 + first.stamp.nanosec

    bench.send(RGB, header=bench.header(stamp_ns=stamp_ns - 10**8))
    bench.wait_for_status(levels()[1], "late: picture is 0.100 s older than the last")
    last = bench.segment(RGB).header

    assert [mask.header for mask in bench.masks] == [first, last]
    bench.wait(lambda: bench.values()["dropped_late"] == "1", "one late picture")


def test_old_picture_is_dropped(bench):
    bench = bench(grid__enabled=False, max_age=0.5)
    bench.send(RGB, header=bench.header(stamp_ns=bench.now_ns() - 2 * 10**9))

    bench.wait_for_status(levels()[1], "max_age is 0.5 s")

    assert bench.masks == []
    bench.segment(RGB)


@pytest.mark.parametrize(("stamp_ns", "text"), [(0, "stamp is 0"), (None, "in the future")], ids=["zero", "future"])
def test_odd_stamp_is_copied_and_told(bench, stamp_ns, text):
    bench = bench(grid__enabled=False)
    if stamp_ns is None:
        stamp_ns = bench.now_ns() + 30 * 10**9

    mask = bench.segment(RGB, header=bench.header(stamp_ns=stamp_ns))

    assert mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec == stamp_ns
    bench.wait_for_status(levels()[1], text)


def test_stamps_of_another_epoch_are_processed_without_a_latency(bench):
    bench = bench(grid__enabled=False, max_age=0.1)

    for second in (5, 6):
        bench.segment(RGB, header=bench.header(stamp_ns=second * 10**9))

    bench.wait(lambda: bench.values().get("frames_out") == "2", "two masks")
    assert bench.values()["pipeline_latency_ms"] == "n/a"
    assert len(bench.lines("set use_sim_time for a bag")) == 1


def test_second_publisher_is_warned_of_once(bench):
    from sensor_msgs.msg import Image

    bench = bench(grid__enabled=False)
    bench.segment(RGB)
    before = len(bench.reports)
    bench.graph.publisher(Image, "/front/image_raw")

    bench.wait_for_status(levels()[1], "rivals: 2 publishers on /front/image_raw", after=before)
    bench.segment(RGB)
    bench.wait(lambda: "rivals" not in bench.status().message, "the warning is over")

    assert len(bench.lines("2 publishers on /front/image_raw")) == 1


def test_subscriber_that_cannot_be_served_is_told(bench):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import Image

    bench = bench(grid__enabled=False)
    bench.segment(RGB)

    bench.graph.collect(Image, "/mfuser/front/mask", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))

    bench.wait_for_status(levels()[1], "qos: a subscriber of ~/front/mask gets nothing, it asks for another DURABILITY")


def test_publisher_that_cannot_be_heard_is_told(bench):
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    bench = bench(grid__enabled=False, input_reliability="reliable")

    bench.graph.publisher(Image, "/front/image_raw", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))

    bench.wait(
        lambda: bench.lines("nothing comes from a publisher of /front/image_raw, it offers another RELIABILITY"), ""
    )


def test_clock_that_jumps_back_starts_afresh(bench):
    from rosgraph_msgs.msg import Clock

    bench = bench(use_sim_time=True, grid__enabled=False)
    clock = bench.graph.publisher(Clock, "/clock")
    bench.graph.wait_for_match(clock)

    def set_time(second: int) -> None:
        message = Clock()
        message.clock.sec = second
        bench.graph.repeat(
            lambda: clock.publish(message),
            lambda: bench.node.get_clock().now().nanoseconds == second * 10**9,
            "clock",
            10,
        )

    set_time(1000)
    bench.segment(RGB, header=bench.header(stamp_ns=1000 * 10**9))
    set_time(900)  # a bag that is played again
    again = bench.segment(RGB, header=bench.header(stamp_ns=900 * 10**9))

    assert again.header.stamp.sec == 900
    assert bench.lines("time has jumped backwards")


def test_without_a_clock_diagnostics_and_watchdog_go_on(bench, road, forward):
    bench = bench(use_sim_time=True, front__pose=forward)
    bench.segment_with_grid(road, header=bench.header(stamp_ns=0))
    assert bench.set_parameters(diagnostics__stale_after=0.3)[0].successful

    bench.wait_for_status(levels()[2], "silent")

    bench.wait(lambda: set(bench.grids[-1].data) == {-1}, "the grid stands")
    assert bench.grids[-1].header.stamp != bench.masks[-1].header.stamp


def test_silence_in_real_images_is_not_hidden_by_bad_ones(bench):
    bench = bench(grid__enabled=False, diagnostics__stale_after=0.5)

    bench.graph.repeat(
        lambda: bench.send(RGB, encoding="16UC1"),
        lambda: bench.status() and bench.status().level == levels()[2] and int(bench.values()["dropped_bad"]) > 3,
        "no ERROR",
        10,
    )

    assert bench.masks == []
