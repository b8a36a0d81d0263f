"""Lifecycle: from nothing to active and back, in any order, without a trace."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter

import psutil
import pytest
from stand_in import StandIn, picture

from mfuser_ros.errors import CheckpointError


def topics(bench, of: str) -> set[str]:
    entities = bench.node.publishers if of == "publishers" else bench.node.subscriptions
    return {entity.topic_name for entity in list(entities)}


def test_node_waits_for_a_manager_without_autostart(bench):
    from diagnostic_msgs.msg import DiagnosticStatus

    bench = bench(wait=False, autostart=False)

    bench.wait_for_status(DiagnosticStatus.WARN, "not configured")
    assert bench.state() == "unconfigured"
    assert "/mfuser/front/mask" not in topics(bench, "publishers")
    assert bench.segmenter.warmed_up == []

    assert bench.transition("configure")
    assert bench.state() == "inactive"
    assert bench.segmenter.warmed_up == [(720, 1280)]
    assert {"/mfuser/front/mask", "/mfuser/drivable_area/grid"} <= topics(bench, "publishers")
    assert "/front/image_raw" not in topics(bench, "subscriptions")
    bench.wait_for_status(DiagnosticStatus.WARN, "not active")

    assert bench.transition("activate")
    assert bench.state() == "active"
    assert {"/front/image_raw", "/front/camera_info"} <= topics(bench, "subscriptions")
    bench.wait_until_active()
    bench.segment(picture())


def test_latched_topics_are_there_before_activation(bench):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    bench = bench(wait=False, autostart=False)
    assert bench.transition("configure")

    maps = bench.graph.collect(
        String, "/mfuser/class_map", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    bench.wait(lambda: maps, "no class map")


def test_deactivated_node_takes_back_its_grid_and_ignores_pictures(bench, road, forward):
    bench = bench(front__pose=forward)
    stamp = bench.segment_with_grid(road).header.stamp

    assert bench.transition("deactivate")

    bench.wait(lambda: set(bench.grids[-1].data) == {-1}, "the grid stands")
    assert bench.grids[-1].header.stamp != stamp
    assert bench.state() == "inactive"
    assert "/front/image_raw" not in topics(bench, "subscriptions")
    assert not any(thread.name.startswith("mfuser-") for thread in threading.enumerate())

    assert bench.transition("activate")
    bench.wait_until_active()
    assert 0 in bench.segment_with_grid(road).data


def test_deactivation_finishes_the_picture_in_work(bench):
    bench = bench(grid__enabled=False)
    bench.segmenter.gate.clear()
    bench.segmenter.entered.clear()
    header = bench.send(picture())
    assert bench.segmenter.entered.wait(10)
    threading.Timer(0.2, bench.segmenter.gate.set).start()

    assert bench.transition("deactivate")

    bench.wait(lambda: bench.masks, "no mask")
    assert bench.masks[0].header == header


def test_cleaned_up_node_is_as_new_and_can_be_configured_again(bench):
    bench = bench(grid__enabled=False)
    bench.segment(picture())

    assert bench.transition("deactivate")
    assert bench.transition("cleanup")
    assert bench.state() == "unconfigured"
    assert not any(topic.startswith("/mfuser/front") for topic in topics(bench, "publishers"))

    assert bench.transition("configure")
    assert bench.transition("activate")
    bench.wait_until_active()
    bench.segment(picture())
    assert len(bench.segmenter.warmed_up) == 2


def test_failed_configuration_is_told_and_may_be_mended(bench):
    from diagnostic_msgs.msg import DiagnosticStatus

    stand_in = StandIn()

    def load(settings):
        if settings.model == "small":
            raise CheckpointError("models/small.safetensors: SHA-256 differs: fetch it again")
        return stand_in

    bench = bench(wait=False, options={"load": load})
    status = bench.wait_for_status(
        DiagnosticStatus.ERROR, "configure failed: models/small.safetensors: SHA-256 differs"
    )
    assert status.name == "mfuser: front"
    assert bench.state() == "unconfigured"

    assert bench.set_parameters(model="other")[0].successful
    assert bench.transition("configure")
    assert bench.transition("activate")
    bench.wait_until_active()
    bench.segmenter = stand_in
    bench.segment(picture())


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"max_rate": 200.0}, "max_rate is 200: give 0 to 120"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"threshold": "high"}, "threshold is 'high': give a double"),
        ({"cameras": ["a", "a"]}, "cameras holds a name twice"),
        ({"grid__x_min": 50.0}, "grid x_min 50 must be less than x_max 40"),
        ({"grid__resolution": 0.01, "grid__y_max": 900.0}, "cells is larger than 4000000"),
        ({"front__pose": [0.0, 0.0, -1.0, -1.57, 0.0, -1.57]}, "front.pose puts the camera at z = -1 m"),
        ({"front__image_topic": "not a topic"}, "front.image_topic is 'not a topic': give a valid ROS topic name"),
        ({"vocabulary": "/nowhere.yaml"}, "/nowhere.yaml"),
    ],
)
def test_value_that_cannot_work_fails_configuration_with_one_line(bench, parameters, text):
    from diagnostic_msgs.msg import DiagnosticStatus

    from mfuser_ros import vocabulary

    stand_in = StandIn()

    def load(settings):
        stand_in.vocabulary = vocabulary.load(settings.vocabulary or None)
        return stand_in

    bench = bench(wait=False, options={"load": load}, **parameters)

    status = bench.wait_for_status(DiagnosticStatus.ERROR, text)

    assert "\n" not in status.message
    assert bench.state() == "unconfigured"
    assert not any(topic.startswith("/mfuser/front") for topic in topics(bench, "publishers"))


def test_failed_activation_is_told_and_leaves_nothing(bench):
    from diagnostic_msgs.msg import DiagnosticStatus

    name = "qos_overrides./front/camera_info.subscription.reliability"
    bench = bench(wait=False, **{name: "sometimes"})

    bench.wait_for_status(DiagnosticStatus.ERROR, "activate failed: RuntimeError: Unexpected QoS override")
    assert bench.state() == "inactive"
    assert "/front/image_raw" not in topics(bench, "subscriptions")
    assert not any(thread.name.startswith("mfuser-") for thread in threading.enumerate())


@pytest.mark.parametrize(
    "steps", [[], ["configure"], ["configure", "activate"]], ids=["unconfigured", "inactive", "active"]
)
def test_shutdown_from_every_state_leaves_nothing(bench, steps):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    bench = bench(wait=False, autostart=False)
    for step in steps:
        assert bench.transition(step)
    number = {
        "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
        "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
        "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
    }[bench.state()]

    assert bench._call(
        ChangeState, "/mfuser/change_state", ChangeState.Request(transition=Transition(id=number))
    ).success

    assert bench.state() == "finalized"
    assert not any(topic.startswith("/mfuser/front") for topic in topics(bench, "publishers"))
    assert not any(thread.name.startswith("mfuser-") for thread in threading.enumerate())


def counts(node) -> dict[str, int]:
    """All that a node could leave behind."""
    gc.collect()
    ours = (
        "Publisher", "Subscription", "Camera", "Pipeline", "Worker", "PoseWatch", "StandIn", "DrivableArea",
        "EventHandler",
    )  # fmt: skip
    process = psutil.Process()
    return {
        "threads": threading.active_count(),
        "system threads": process.num_threads(),
        "files": process.num_fds(),
        **{
            of: len(list(getattr(node, of)))
            for of in ("publishers", "subscriptions", "timers", "waitables", "services")
        },
        **dict(Counter(name for item in gc.get_objects() if (name := type(item).__name__) in ours)),
    }


def test_transitions_in_random_order_leak_nothing(bench):
    """200 requests for a transition, sensible or not, with pictures while the node is active."""
    bench = bench(wait=False, autostart=False, grid__enabled=False, options={"load": lambda settings: StandIn()})
    after = {
        "unconfigured": {"configure": "inactive"},
        "inactive": {"activate": "active", "cleanup": "unconfigured"},
        "active": {"deactivate": "inactive"},
    }
    choose = random.Random(0)
    state = "unconfigured"
    rounds: list[tuple[dict[str, int], int]] = []  # counts and memory whenever it is unconfigured

    def step(label: str) -> None:
        nonlocal state
        expected = after[state].get(label)
        assert bench.transition(label) == (expected is not None), (state, label)
        state = expected or state
        if state == "active" and expected:
            bench.wait_until_active()
            bench.segment(picture())
        if state == "unconfigured" and expected:
            bench.graph.wait(  # the test's side hears of it a moment later
                lambda: not any(publisher.get_subscription_count() for publisher in bench.image_publishers.values()), ""
            )
            rounds.append((counts(bench.node), psutil.Process().memory_info().rss))

    seen = Counter()
    for _ in range(200):
        label = choose.choice(["configure", "activate", "deactivate", "cleanup"])
        seen[state, label] += 1
        step(label)
    for label in ("deactivate", "cleanup"):
        if label in after[state]:
            step(label)

    assert len(seen) == 12, "not every request was made in every state"
    assert len(rounds) > 10
    assert [found for found, _ in rounds[1:]] == [rounds[0][0]] * (len(rounds) - 1)
    memory = [rss / 1e6 for _, rss in rounds]
    assert memory[-1] - memory[len(memory) // 3] < 8, memory  # MB; a model or a picture would be more
