"""Parameters of a running node: what may change, what is refused, what is ignored."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in import picture


def parameter(bench, name: str):
    return bench.node.get_parameter(name).value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rate", 12.5),
        ("max_rate", 10),  # a whole number does for a double
        ("max_age", 9.5),  # far above what a busy machine takes
        ("overlay_alpha", 0.1),
        ("free_roles", ["drivable", "walkable"]),
        ("grid.enabled", False),
        ("ground.z", -0.1),
        ("diagnostics.stale_after", 3.0),
    ],
)
def test_run_time_parameter_may_change(bench, name, value):
    bench = bench()

    (result,) = bench.set_parameters(**{name: value})

    assert result.successful, result.reason
    assert parameter(bench, name) == value
    bench.segment(picture())


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_rate", 200.0, "out of range"),
        ("max_rate", 200, "max_rate is 200: give 0 to 120"),
        ("max_rate", float("nan"), "max_rate"),
        ("max_rate", "fast", "max_rate is 'fast': give a double"),
        ("threshold", -0.5, "threshold is -0.5"),
        ("free_roles", ["sky"], "free_roles is 'sky'"),
        ("ground.z", 2.0, "front.pose puts the camera at z = 1.5 m and the ground is at 2 m"),
        ("model", "other", "model is fixed while the node is configured"),
        ("cameras", ["rear"], "cameras is fixed while the node is configured"),
        ("front.pose", [0.0] * 6, "front.pose is fixed while the node is configured"),
        ("autostart", False, "read-only"),
    ],
)
def test_change_that_cannot_work_is_refused_and_changes_nothing(bench, forward, name, value, text):
    bench = bench(front__pose=forward)
    before = parameter(bench, name)

    (result,) = bench.set_parameters(**{name: value})

    assert not result.successful
    assert text in result.reason
    assert parameter(bench, name) == before
    bench.segment(picture())


def test_threshold_reaches_the_network_and_returns_to_the_models_own(bench):
    bench = bench(grid__enabled=False)

    for value, expected in ((0.75, 0.75), (0.0, 0.0), (-1.0, 0.25)):
        assert bench.set_parameters(threshold=value)[0].successful
        bench.segment(picture())
        assert bench.segmenter.thresholds[-1] == expected


def test_free_roles_and_confidence_reach_the_grid(bench, road, forward):
    bench = bench(front__pose=forward)
    walk = road.copy()
    walk[road[..., 0] == 0, 0] = 1  # all road is sidewalk
    unsure = road.copy()
    unsure[..., 2] = 100  # 0.39
    assert 0 in bench.segment_with_grid(road).data
    assert 0 not in bench.segment_with_grid(walk).data
    assert 0 not in bench.segment_with_grid(unsure).data

    assert bench.set_parameters(free_roles=["walkable"], grid__min_confidence=0.3)[0].successful

    assert 0 in bench.segment_with_grid(walk).data
    walk[..., 2] = 100
    assert 0 in bench.segment_with_grid(walk).data


def test_grid_may_be_turned_off_and_on(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)

    assert bench.set_parameters(grid__enabled=False)[0].successful
    grids = len(bench.grids)
    for _ in range(3):
        bench.segment(road)
    bench.wait(lambda: len(bench.grids) > grids, "the latched grid stands")
    assert [set(grid.data) for grid in bench.grids[grids:]] == [{-1}]

    assert bench.set_parameters(grid__enabled=True)[0].successful
    assert 0 in bench.segment_with_grid(road).data


def test_rate_is_limited(bench):
    bench = bench(grid__enabled=False, max_rate=1.0)
    first = bench.segment(picture())

    for _ in range(3):
        bench.send(picture())
    bench.wait(lambda: int(bench.values().get("frames_in", 0)) >= 2, "more pictures")

    assert [mask.header for mask in bench.masks] == [first.header]
    assert bench.values()["dropped_late"] == "0"


def test_unknown_parameters_are_named(bench):
    bench = bench(fornt__pose=[0.0] * 6, modell="small")

    bench.wait(lambda: bench.lines("parameters that do not exist: fornt.pose, modell: check their names"), "no warning")


def test_parameter_file_fits_the_node_in_any_namespace(graph, tmp_path):
    from stand_in import StandIn

    from mfuser_ros.node.node import MFuserNode
    from mfuser_ros.node.parameters import yaml_text

    file = tmp_path / "changed.yaml"
    file.write_text(yaml_text().replace("max_rate: 0.0", "max_rate: 7.5"))
    arguments = ["--ros-args", "--params-file", str(file), "-r", "__ns:=/perception", "-r", "__node:=eyes"]

    node = MFuserNode(load=lambda settings: StandIn(), context=graph.context, cli_args=arguments)

    assert node.get_fully_qualified_name() == "/perception/eyes"
    assert node.get_parameter("max_rate").value == 7.5
    node.destroy_node()


def test_parameters_are_described_with_their_range(bench):
    bench = bench()

    descriptor = bench.node.describe_parameter("max_rate")

    assert descriptor.description.startswith("Most pictures a second")
    (limits,) = descriptor.floating_point_range
    assert (limits.from_value, limits.to_value) == (0.0, 120.0)
    choices = bench.node.describe_parameter("precision").additional_constraints
    assert choices == "auto, float32, float16, bfloat16, float8"


def test_qos_override_changes_one_topic_alone(bench):
    from rclpy.qos import ReliabilityPolicy

    bench = bench(
        **{
            "qos_overrides./mfuser/front/mask.publisher.reliability": "best_effort",
            "qos_overrides./front/image_raw.subscription.depth": 7,
        },
        wait=False,
    )
    bench.graph.wait_for_publisher("/mfuser/front/confidence")

    def reliability(topic: str):
        (info,) = bench.graph.node.get_publishers_info_by_topic(topic)
        return info.qos_profile.reliability

    assert reliability("/mfuser/front/mask") == ReliabilityPolicy.BEST_EFFORT
    assert reliability("/mfuser/front/confidence") == ReliabilityPolicy.RELIABLE

    def depths() -> dict[str, int]:
        return {s.topic_name: s.qos_profile.depth for s in list(bench.node.subscriptions)}

    bench.wait(lambda: {"/front/image_raw", "/front/camera_info"} <= depths().keys(), "not active")
    assert (depths()["/front/image_raw"], depths()["/front/camera_info"]) == (7, 5)
    assert bench.lines("parameters that do not exist") == []


def test_topics_may_be_remapped_and_camera_info_follows(bench):
    arguments = ["--ros-args", "-r", "front/image_raw:=/camera/colour/image_rect_raw"]

    bench = bench(options={"cli_args": arguments}, wait=False)

    bench.wait(lambda: bench.graph.node.count_subscribers("/camera/colour/image_rect_raw"), "no subscription")
    bench.wait(lambda: bench.graph.node.count_subscribers("/camera/colour/camera_info"), "no sibling")


def test_rectified_topic_uses_the_projection_matrix(bench, road, forward):
    bench = bench(front__pose=forward, front__image_topic="cam/image_rect")
    p = [300.0, 0.0, 159.5, 0.0, 0.0, 300.0, 119.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    # k and d of a lens that bends: they must not be used
    bench.send_info(240, 320, p=p, k=[1.0] * 9, distortion_model="what", d=[9.0])

    bench.graph.repeat(lambda: bench.segment(road), lambda: bench.grids, "no grid", 10)

    ahead = np.array(bench.grids[-1].data, np.int8).reshape(150, 225)[75]
    assert ahead[int((10.1 + 5) / 0.2)] == 0


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("model", "other", True),  # in models/
        ("model", "/etc/secret.safetensors", False),
        ("model", "../other", False),
        ("model", "secret.safetensors", False),  # in the folder that the node was started in
        ("vocabulary", "/etc/passwd", False),
        ("vocabulary", "", True),
        ("vocabulary", "/given/at/start.yaml", True),
    ],
)
def test_running_node_reads_no_file_that_it_was_not_started_with(bench, name, value, taken):
    bench = bench(wait=False, autostart=False, vocabulary="/given/at/start.yaml")

    (result,) = bench.set_parameters(**{name: value})

    assert result.successful == taken
    if not taken:
        assert result.reason == f"{name} is '{value}', a path: give it when the node is started"
