"""The diagnostic that asks the road whether a camera still looks as its pose says, on rendered roads."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "drivable"))

from road_scene import ROAD, Scene, lens_rays, optical_pose

from mfuser_ros import vocabulary
from mfuser_ros.drivable import CameraModel

HEIGHT, WIDTH = 200, 320
K = np.array([[300.0, 0, 159.5], [0, 300, 99.5], [0, 0, 1]])  # as Bench.send_info says
CAMERA = CameraModel(WIDTH, HEIGHT, K)
RAYS = lens_rays(WIDTH, HEIGHT, K)
STREET = Scene(half_width=5.0, sidewalk_width=3.0)


def labels(way: float, pitch_deg: float, scene: Scene = STREET) -> np.ndarray:
    return scene.render(RAYS, optical_pose(way, 0.1, 1.5, pitch_deg=pitch_deg))


def looks(check, limits, pitch_deg: float, *, count: int, stated=None, scene: Scene = STREET):
    """Verdicts of looks on the way, a second apart."""
    pose = optical_pose(z=1.5, pitch_deg=3) if stated is None else stated
    for step in range(count):
        mask = labels(2.0 * step, pitch_deg, scene)
        yield check.look(mask, np.zeros((HEIGHT, WIDTH, 3), np.uint8), CAMERA, pose, step * 10**9, limits)


@pytest.fixture
def check():
    module = pytest.importorskip("mfuser_ros.node.pose_check", reason="comes with rclpy, and there is none")
    return module.PoseCheck(vocabulary.load())


@pytest.fixture
def limits():
    module = pytest.importorskip("mfuser_ros.node.pose_check", reason="comes with rclpy, and there is none")
    return module.PoseLimits(period_s=1.0, pitch_deg=1.0, height_m=0.1, lane_width_m=0.0)


def test_drifted_camera_is_told_after_some_looks(check, limits):
    verdicts = list(looks(check, limits, 5.0, count=8))

    assert verdicts[:7] == [(False, None)] * 7
    told, fault = verdicts[7]
    assert told
    assert fault.kind == "pose_drift"
    assert "the road says pitch +1.99 degrees against the pose in use, from road edges in 8 of 8 frames" in str(fault)
    assert "mfuser calibrate" in str(fault)


def test_camera_that_looks_as_stated_clears_the_fault(check, limits):
    assert list(looks(check, limits, 3.4, count=8))[-1] == (True, None)


def test_road_that_does_not_tell_changes_nothing(check, limits):
    assert list(looks(check, limits, 3.0, count=9, scene=Scene(half_width=500)))[-2:] == [(False, None)] * 2


def test_pose_that_moves_starts_afresh(check, limits):
    assert not any(told for told, _ in looks(check, limits, 5.0, count=5))
    moved = optical_pose(z=1.5, pitch_deg=3.5)

    verdicts = list(looks(check, limits, 5.0, count=8, stated=moved))

    assert [told for told, _ in verdicts] == [False] * 7 + [True]


def test_looks_are_as_far_apart_as_the_parameter_says(check, limits):
    assert check.is_due(0, limits)
    next(looks(check, limits, 3.0, count=1))

    assert not check.is_due(999_999_999, limits)
    assert check.is_due(10**9, limits)
    assert not check.is_due(10**10, limits._replace(period_s=0.0))


def test_node_warns_of_a_camera_that_looks_elsewhere_than_its_pose_says(bench):
    from diagnostic_msgs.msg import DiagnosticStatus

    level = [0.0, 0.0, 1.5, -np.pi / 2, 0.0, -np.pi / 2]
    bench = bench(front__pose=level, diagnostics__pose_check__period=0.001)

    def picture(step: int) -> np.ndarray:
        mask = labels(2.0 * step, 4.0)
        assert (mask == ROAD).any()
        return np.stack([mask, np.zeros_like(mask), np.full_like(mask, 255)], axis=-1)

    bench.segment_with_grid(picture(0))
    before = len(bench.reports)
    for step in range(1, 10):
        bench.segment_with_grid(picture(step))

    status = bench.wait_for_status(DiagnosticStatus.WARN, "the road says pitch +", after=before)
    (drift,) = re.findall(r"pitch \+([0-9.]+) degrees against the pose in use, from road edges", status.message)
    assert float(drift) == pytest.approx(4.0, abs=0.2)


def test_masks_and_grids_do_not_wait_for_a_look_and_the_newest_picture_is_looked_at(bench, monkeypatch):
    from mfuser_ros.node.pose_check import PoseCheck

    looked: list[int] = []
    entered, let_go = threading.Event(), threading.Event()

    def look(check, mask, picture, *_):
        looked.append(int(picture[0, 0, 2]))
        entered.set()
        assert let_go.wait(30)
        return False, None

    monkeypatch.setattr(PoseCheck, "look", look)
    bench = bench(front__pose=[0.0, 0.0, 1.5, -np.pi / 2, 0.0, -np.pi / 2], diagnostics__pose_check__period=1.0)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    bench.segment_with_grid(picture)
    bench.wait(entered.is_set, "no look")

    for number in (101, 102, 103):
        picture[0, 0, 2] = number
        bench.segment_with_grid(picture)
    assert looked == [0]  # still at the first one
    let_go.set()
    bench.wait(lambda: len(looked) > 1, "no second look")

    assert looked == [0, 103]


def test_deactivation_ends_the_check_of_poses(bench, monkeypatch):
    from mfuser_ros.node.pose_check import PoseCheck

    entered = threading.Event()

    def look(*_):
        entered.set()
        raise RuntimeError("no road\nat all")

    monkeypatch.setattr(PoseCheck, "look", look)
    bench = bench(front__pose=[0.0, 0.0, 1.5, -np.pi / 2, 0.0, -np.pi / 2])
    bench.segment_with_grid(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    bench.wait(entered.is_set, "no look")
    text = "pose_drift: the pose could not be checked: RuntimeError: no road at all"
    bench.wait(lambda: text in bench.status().message, "the failure is not told")
    assert any(thread.name == "mfuser-pose-check" for thread in threading.enumerate())

    assert bench.transition("deactivate")

    assert not any(thread.name.startswith("mfuser-") for thread in threading.enumerate())
    assert "pose_drift" not in bench.node._pipeline.report(regular=True)["front"].message
