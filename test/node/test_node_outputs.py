"""What the node publishes for a picture."""

from __future__ import annotations

import json

import cv2
import numpy as np
from stand_in import UNSURE, picture

from mfuser_ros.drivable import CameraModel, DrivableArea, GridSpec, View
from mfuser_ros.node.calibration import pose_matrix
from mfuser_ros.vocabulary import load


def pixels(message) -> np.ndarray:
    channels = {"mono8": 1, "rgb8": 3}[message.encoding]
    return np.array(message.data, np.uint8).reshape(message.height, message.width, channels).squeeze()


def cells(grid) -> np.ndarray:
    return np.array(grid.data, np.int8).reshape(grid.info.height, grid.info.width)


def test_mask_and_confidence_are_those_of_the_network(bench):
    bench = bench()
    rgb = picture()

    mask = bench.segment(rgb, header=bench.header(frame="/odd/frame"))
    bench.wait(lambda: bench.confidences, "no confidence")

    confidence = bench.confidences[-1]
    unknown = rgb[..., 1] >= UNSURE
    assert unknown.any()
    np.testing.assert_array_equal(pixels(mask), np.where(unknown, 255, rgb[..., 0] % 19))
    np.testing.assert_array_equal(pixels(confidence), np.where(unknown, 0, rgb[..., 2]))
    assert confidence.header == mask.header
    assert mask.header.frame_id == "/odd/frame"
    for message in (mask, confidence):
        assert (message.height, message.width, message.step, message.encoding) == (48, 64, 64, "mono8")
        assert message.is_bigendian == 0


def test_picture_reaches_the_network_as_rgb_without_padding(bench):
    bench = bench()
    rgb = picture(5, 7)
    padded = np.pad(rgb[..., ::-1].reshape(5, 21), ((0, 0), (0, 4))).tobytes()

    bench.segment(rgb, encoding="bgr8", step=25, data=padded)

    np.testing.assert_array_equal(bench.segmenter.pictures[-1], rgb)


def test_size_may_change_from_picture_to_picture(bench):
    bench = bench()

    for height, width in ((48, 64), (20, 30), (100, 10), (48, 64)):
        rgb = picture(height, width)
        mask = bench.segment(rgb)

        assert (mask.height, mask.width, mask.step) == (height, width, width)
        np.testing.assert_array_equal(pixels(mask) == 255, rgb[..., 1] >= UNSURE)


def test_compressed_picture_is_segmented(bench):
    bench = bench(front__transport="compressed")
    rgb = picture()

    header = bench.send_compressed(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes(), "png")
    bench.wait(lambda: bench.masks, "no mask")

    assert bench.masks[0].header == header
    np.testing.assert_array_equal(bench.segmenter.pictures[-1], rgb)


def test_overlay_is_made_for_subscribers_only_and_at_most_at_its_rate(bench, monkeypatch):
    from sensor_msgs.msg import Image

    from mfuser_ros.inference import Segmentation

    made = []
    original = Segmentation.overlay
    monkeypatch.setattr(Segmentation, "overlay", lambda self, alpha: made.append(alpha) or original(self, alpha))
    bench = bench(overlay_rate=0.01, overlay_alpha=0.25)
    bench.segment(picture())
    assert made == []

    overlays = bench.graph.collect(Image, "/mfuser/front/overlay")
    bench.wait_until_connected("/mfuser/front/overlay")
    rgb = picture(seed=2)
    first = bench.segment(rgb).header
    for seed in range(3):
        bench.segment(picture(seed=seed))
    bench.wait(lambda: overlays, "no overlay")

    assert made == [0.25]
    assert [overlay.header for overlay in overlays] == [first]
    assert overlays[0].encoding == "rgb8"
    np.testing.assert_array_equal(pixels(overlays[0]), original(bench.segmenter(rgb), 0.25))


def test_camera_info_goes_out_under_the_header_of_the_picture(bench, road):
    bench = bench()
    bench.send_info(*road.shape[:2], distortion_model="rational_polynomial", d=[0.01] * 8)

    bench.graph.repeat(lambda: bench.segment(road), lambda: bench.infos, "no camera_info", 10)

    info = bench.infos[-1]
    assert info.header in [mask.header for mask in bench.masks]
    assert (info.height, info.width, info.distortion_model, list(info.d)) == (
        240,
        320,
        "rational_polynomial",
        [0.01] * 8,
    )


def test_grid_is_the_drivable_area_of_the_mask(bench, road, forward):
    bench = bench(front__pose=forward, ground__max_range=1000.0)

    grid = bench.segment_with_grid(road)

    camera = CameraModel(320, 240, [300, 0, 159.5, 0, 300, 119.5, 0, 0, 1])
    result = bench.segmenter(road)
    view = View(result.mask, result.confidence, camera, pose_matrix(forward))
    expected = DrivableArea(GridSpec(), load()).update([view])
    np.testing.assert_array_equal(cells(grid), expected.occupancy)
    assert set(np.unique(cells(grid))) == {-1, 0, 100}
    assert grid.header.frame_id == "base_link"
    assert grid.info.map_load_time == grid.header.stamp == bench.masks[-1].header.stamp
    assert (grid.info.width, grid.info.height) == (225, 150)
    assert np.float32(grid.info.resolution) == np.float32(0.2)
    origin = grid.info.origin
    assert (origin.position.x, origin.position.y, origin.position.z) == (-5, -15, 0)
    assert (origin.orientation.x, origin.orientation.y, origin.orientation.z, origin.orientation.w) == (0, 0, 0, 1)


def test_grid_is_right_by_hand(bench, road, forward):
    """The car ends 29.5 px and the road begins 30.5 px below the middle: 1.5 m * 300 px / 30 px = 15 m ahead."""
    bench = bench(front__pose=forward)

    grid = cells(bench.segment_with_grid(road))

    def cell(x: float, y: float) -> int:
        return int(grid[int((y + 15) / 0.2), int((x + 5) / 0.2)])

    assert cell(10.1, 0.1) == 0  # road ahead
    assert cell(-2.1, 0.1) == -1  # behind the camera
    assert cell(1.1, 0.1) == -1  # under the picture's lower edge, 1.5 m * 300 / 120 = 3.8 m away
    assert cell(20.1, 6.1) == -1  # behind the car
    along = grid[int((3.6 + 15) / 0.2)]  # y = 3.6 m is 72 px to the left at 15 m: in the car's middle
    occupied_x = np.flatnonzero(along == 100) * 0.2 - 5
    assert 14.5 < occupied_x[0] <= 14.75
    assert 14.75 < occupied_x[-1] <= 15.25


def test_cells_and_contacts_beyond_max_range_are_unknown(bench, road, forward):
    from sensor_msgs.msg import PointCloud2

    bench = bench(front__pose=forward, ground__max_range=12.0)
    clouds = bench.graph.collect(PointCloud2, "/mfuser/drivable_area/contacts")
    bench.wait_until_connected("/mfuser/drivable_area/contacts")

    grid = cells(bench.segment_with_grid(road))

    x = -5 + 0.2 * (np.arange(225) + 0.5)
    y = -15 + 0.2 * (np.arange(150) + 0.5)
    distance = np.hypot(x[None], y[:, None])
    assert (grid[distance > 12] == -1).all()
    assert (grid[distance < 11] == 0).any()
    bench.wait(lambda: clouds, "no contacts")
    assert clouds[-1].width == 0  # the car is 15 m away
    assert len(clouds[-1].fields) == 4


def test_contacts_and_boundary_describe_the_same_ground(bench, road, forward):
    from geometry_msgs.msg import PolygonStamped
    from sensor_msgs.msg import PointCloud2, PointField

    bench = bench(front__pose=forward, contacts_height=0.5, ground__z=0.25)
    clouds = bench.graph.collect(PointCloud2, "/mfuser/drivable_area/contacts")
    polygons = bench.graph.collect(PolygonStamped, "/mfuser/drivable_area/boundary")
    for name in ("contacts", "boundary"):
        bench.wait_until_connected(f"/mfuser/drivable_area/{name}")

    grid = bench.segment_with_grid(road)
    bench.wait(lambda: clouds and polygons, "no contacts or boundary")

    cloud, polygon = clouds[-1], polygons[-1]
    assert cloud.header == polygon.header == grid.header
    fields = {field.name: (field.offset, field.datatype, field.count) for field in cloud.fields}
    assert {name: fields[name][1] for name in fields} == {
        "x": PointField.FLOAT32,
        "y": PointField.FLOAT32,
        "z": PointField.FLOAT32,
        "class_id": PointField.UINT8,
    }
    assert (cloud.height, cloud.row_step, cloud.is_bigendian) == (1, cloud.width * cloud.point_step, False)
    raw = np.array(cloud.data, np.uint8).reshape(cloud.width, cloud.point_step)
    xyz = np.stack([raw[:, fields[name][0] :][:, :4].copy().view("<f4")[:, 0] for name in "xyz"], axis=1)
    # the camera is 1.5 - 0.25 m over the ground: 1.25 * 300 / 30 = 12.5 m
    assert len(xyz) > 5
    np.testing.assert_allclose(xyz[:, 0], 12.5, atol=0.25)
    np.testing.assert_allclose(xyz[:, 2], 0.75)
    assert (raw[:, fields["class_id"][0]] == 13).all()
    points = np.array([(point.x, point.y, point.z) for point in polygon.polygon.points])
    assert len(points) >= 3
    np.testing.assert_allclose(points[:, 2], 0.25)
    x, y = points[:, 0], points[:, 1]
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0  # counter-clockwise
    assert np.hypot(x, y).max() <= 40.0 + 1e-3


def test_cameras_have_topics_of_their_own_and_share_the_grid_of_one_instant(bench, road, forward):
    to_the_left = [*forward[:5], 0.0]  # yaw of the optical frame: -90 degrees looks forward
    bench = bench(cameras=["front", "left"], front__pose=forward, left__pose=to_the_left)
    front = cells(bench.segment_with_grid(road))
    instant = bench.masks[-1].header.stamp

    def send_left() -> None:
        header = bench.header(frame="left_optical")
        header.stamp = instant
        bench.send_info(*road.shape[:2], camera="left")
        bench.send(road, camera="left", header=header)

    grids = len(bench.grids)
    bench.graph.repeat(send_left, lambda: len(bench.grids) > grids, "no grid of the left camera", 10)

    both = cells(bench.grids[-1])
    assert bench.masks_of["left"][-1].header.frame_id == "left_optical"
    assert bench.grids[-1].header.stamp == instant
    row = int((10.1 + 15) / 0.2)
    assert (front[row, 25], both[row, 25]) == (-1, 0)  # 10 m to the left
    assert both[75, int((10.1 + 5) / 0.2)] == 0  # and still 10 m ahead


def test_class_map_reaches_late_subscribers_and_follows_free_roles(bench):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    bench = bench()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    maps = bench.graph.collect(String, "/mfuser/class_map", latched)
    bench.wait(lambda: maps, "no class map")

    def drivable() -> list[str]:
        return [entry["name"] for entry in json.loads(maps[-1].data)["classes"] if entry["drivable"]]

    first = json.loads(maps[-1].data)
    assert (first["version"], first["unknown"]) == (1, 255)
    assert first["classes"][11] == {"id": 11, "name": "person", "color": [220, 20, 60], "drivable": False}
    assert drivable() == ["road"]
    assert bench.set_parameters(free_roles=["drivable", "ground"])[0].successful
    bench.wait(lambda: len(maps) == 2, "no new class map")
    assert drivable() == ["road", "terrain"]


def test_times_are_published_for_every_picture(bench):
    from std_msgs.msg import Float64

    bench = bench()
    names = [
        "processing_time_ms",
        "cyclic_time_ms",
        "pipeline_latency_ms",
        *(f"processing_time/{stage}_ms" for stage in ("preprocess", "inference", "postprocess")),
    ]
    times = {name: bench.graph.collect(Float64, f"/mfuser/debug/{name}") for name in names}
    for name in names:
        bench.wait_until_connected(f"/mfuser/debug/{name}")

    bench.segment(picture())
    bench.segment(picture())
    bench.wait(lambda: len(times["pipeline_latency_ms"]) == 2 and times["cyclic_time_ms"], "no times")

    values = {name: [message.data for message in times[name]] for name in names}
    assert values["processing_time/preprocess_ms"][0] == 1.0
    assert values["processing_time/inference_ms"][0] == 2.0
    assert values["processing_time/postprocess_ms"][0] == 3.0
    assert all(0 < value < 20_000 for name in names for value in values[name])
    # the picture was on its way before the node began to work on it
    assert values["pipeline_latency_ms"][0] > values["processing_time_ms"][0]


def test_diagnostics_tell_a_working_camera(bench):
    from diagnostic_msgs.msg import DiagnosticStatus

    bench = bench(grid__enabled=False)
    bench.segment(picture())

    status = bench.wait_for_status(DiagnosticStatus.OK, "running")

    assert status.name == "mfuser: front"
    assert status.hardware_id == "cpu"
    values = {entry.key: entry.value for entry in status.values}
    assert (values["frames_in"], values["encoding"], values["size"]) == ("1", "rgb8", "64x48")
    assert (values["model"], values["model_sha256"], values["device"]) == ("stand-in", "0" * 64, "cpu")


def test_every_topic_has_the_qos_of_the_specification(bench):
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    bench = bench()
    reliable, best_effort = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
    volatile, latched = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
    expected = {
        "/mfuser/front/mask": (reliable, volatile),
        "/mfuser/front/confidence": (reliable, volatile),
        "/mfuser/front/overlay": (reliable, volatile),
        "/mfuser/front/camera_info": (reliable, volatile),
        "/mfuser/class_map": (reliable, latched),
        "/mfuser/drivable_area/grid": (reliable, latched),
        "/mfuser/drivable_area/boundary": (reliable, volatile),
        "/mfuser/drivable_area/contacts": (reliable, volatile),
        "/diagnostics": (reliable, volatile),
    }

    for topic, policies in expected.items():
        (info,) = bench.graph.node.get_publishers_info_by_topic(topic)
        assert (info.qos_profile.reliability, info.qos_profile.durability) == policies, topic
    for topic in ("/front/image_raw", "/front/camera_info"):
        (info,) = bench.graph.node.get_subscriptions_info_by_topic(topic)
        assert (info.qos_profile.reliability, info.qos_profile.durability) == (best_effort, volatile), topic


def test_rviz_listens_to_topics_that_the_node_makes(bench):
    from pathlib import Path

    import yaml

    bench = bench(options={"namespace": "/perception"}, wait=False)
    bench.graph.wait_for_publisher("/perception/mfuser/drivable_area/grid")
    file = Path(__file__).resolve().parents[2] / "config" / "rviz" / "segment.rviz"
    displays = yaml.safe_load(file.read_text())["Visualization Manager"]["Displays"]
    types = {"Image": "sensor_msgs/msg/Image", "Map": "nav_msgs/msg/OccupancyGrid"}
    types |= {
        "Camera": "sensor_msgs/msg/Image",
        "Polygon": "geometry_msgs/msg/PolygonStamped",
        "PointCloud2": "sensor_msgs/msg/PointCloud2",
    }

    shown = [display for display in displays if "Topic" in display]
    assert len(shown) == 6
    for display in shown:
        topic, kind = display["Topic"]["Value"], display["Class"].rpartition("/")[2]
        bench.graph.wait_for_publisher(topic)
        (info,) = bench.graph.node.get_publishers_info_by_topic(topic)
        assert info.topic_type == types[kind]
        if display["Topic"]["Durability Policy"] == "Transient Local":
            assert info.qos_profile.durability.name == "TRANSIENT_LOCAL"
