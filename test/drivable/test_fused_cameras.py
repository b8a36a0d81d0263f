"""Several cameras of different lenses round one vehicle, against the geometry of the scene."""

import numpy as np
import pytest
from judge import Witness, judge
from road_scene import CAR, ROAD, SIDEWALK, Box, Post, Scene, optical_pose
from witness_cameras import BARREL, FISHEYE, WitnessCamera

from mfuser_ros import vocabulary
from mfuser_ros.drivable import DrivableArea, GridSpec, View

SPEC = GridSpec(-20.0, 30.0, -12.0, 12.0, 0.2)
RIG = {
    "front": WitnessCamera(640, 360, 420.0, (), "plumb_bob", optical_pose(1.5, 0.0, 1.5, pitch_deg=6)),
    "left": WitnessCamera(
        640, 480, 240.0, FISHEYE, "equidistant", optical_pose(0.5, 0.8, 1.2, pitch_deg=15, yaw_deg=75)
    ),
    "right": WitnessCamera(
        640, 480, 240.0, FISHEYE, "equidistant", optical_pose(0.5, -0.8, 1.2, pitch_deg=15, yaw_deg=-75)
    ),
    "rear": WitnessCamera(
        720, 400, 480.0, BARREL, "plumb_bob", optical_pose(-1.0, 0.0, 1.4, pitch_deg=8, yaw_deg=180, roll_deg=1)
    ),
}
STREET = Scene(
    (
        Box(13, 3.2, 4.5, 1.8, 1.5, yaw=0.1),
        Box(-9, -2.5, 4.5, 1.8, 1.5),
        Post(8, -2, 0.25, 1.75),
        Post(3, 4.5, 0.25, 1.75),  # seen by front and left
        Post(-6, 1.5, 0.25, 1.75),
        Box(1, -7.5, 8, 1, 2),
    ),
    half_width=6.0,
    kerb_height=0.12,
)


@pytest.fixture(scope="module")
def area():
    words = vocabulary.load(__file__.split("test/drivable", maxsplit=1)[0] + "config/vocabulary.yaml")
    return DrivableArea(SPEC, words)


def look(name: str, scene: Scene = STREET) -> View:
    camera = RIG[name]
    mask = scene.render(camera.rays, camera.pose)
    return View(mask, np.full_like(mask, 255), camera.camera, camera.pose)


def witness(name: str) -> Witness:
    camera = RIG[name]
    return Witness(STREET, camera.camera, camera.pose, camera.project, camera.rays)


@pytest.mark.parametrize("names", [("front", "left", "right"), ("front", "left", "right", "rear")])
def test_fused_area_is_the_free_space_that_the_cameras_see_together(area, names):
    result = area.update([look(name) for name in names])

    verdict = judge(result.occupancy, SPEC, *map(witness, names))
    assert verdict.judged > 3000
    assert verdict.iou >= 0.97
    assert verdict.wrong_free == 0
    assert verdict.feet_share >= 0.9


def test_order_of_the_views_does_not_matter(area):
    views = [look(name) for name in RIG]

    there, back = area.update(views), area.update(views[::-1])

    np.testing.assert_array_equal(there.occupancy, back.occupancy)
    np.testing.assert_array_equal(there.boundary, back.boundary)


def test_where_views_overlap_occupied_wins_over_free_and_free_over_unknown(area):
    front, left = look("front"), look("left")
    alone = area.update([look("front", Scene(half_width=100))]).occupancy, area.update([left]).occupancy
    ghost = View(np.where(left.mask == ROAD, ROAD, left.mask), left.confidence, left.camera, left.T_vehicle_camera)
    ghost.mask[:] = ROAD  # this one sees nothing but road

    fused = area.update([front, ghost]).occupancy

    marked = area.update([front]).occupancy == 100
    free_to_left = area.update([ghost]).occupancy == 0
    both = marked & free_to_left
    assert both.sum() > 5
    assert (fused[both] == 100).all()
    unknown_in_front = (area.update([front]).occupancy == -1) & free_to_left
    assert unknown_in_front.sum() > 500
    assert (fused[unknown_in_front] == 0).all()
    assert (alone[0] == 0).any()
    assert (alone[1] == 0).any()


def test_missing_camera_leaves_its_ground_unknown(area):
    three = area.update([look(name) for name in ("front", "right", "rear")]).occupancy
    four = area.update([look(name) for name in RIG]).occupancy

    assert not ((three == 0) & (four != 0) & (four != 100)).any()
    assert (four == 0).sum() > (three == 0).sum() + 200


def test_low_confidence_in_one_view_does_not_hide_what_another_is_sure_of(area):
    front, left = look("front"), look("left")
    left.confidence[:] = 100

    result = area.update([front, left])

    np.testing.assert_array_equal(result.occupancy == 100, area.update([front]).occupancy == 100)
    assert len(result.contacts) == len(area.update([front]).contacts)


def test_contacts_come_from_every_camera(area):
    result = area.update([look(name) for name in RIG])

    ahead, behind = result.contacts[result.contacts[:, 0] > 5], result.contacts[result.contacts[:, 0] < -3]
    assert CAR in ahead[:, 3]
    assert CAR in behind[:, 3]


@pytest.mark.parametrize("height", [0.0, 0.12])
def test_beyond_a_kerb_is_unknown_and_neither_free_nor_an_obstacle(area, height):
    scene = Scene(half_width=3.0, sidewalk_width=4.0, kerb_height=height)

    result = area.update([look("front", scene)])

    y = SPEC.y_min + SPEC.resolution * (np.arange(SPEC.rows) + 0.5)
    ahead = result.occupancy[:, 140:170]  # 8 m to 14 m
    assert (ahead[np.abs(y) < 2.4] == 0).all()
    assert (ahead[np.abs(y) > 3.0] == -1).all()
    assert not (result.occupancy == 100).any()
    assert len(result.contacts) == 0
    assert (look("front", scene).mask == SIDEWALK).any()
    near = result.boundary[(result.boundary[:, 0] > 8) & (result.boundary[:, 0] < 14)]
    assert np.abs(near[:, 1]).max() < 3.0 + SPEC.resolution / 2


def test_ground_frame_may_lie_anywhere_on_the_vehicle(area):
    """The grid turns and shifts with the frame in which the poses are given."""
    quarter = np.eye(4)  # a frame whose x axis points to the vehicle's left, with its origin 2 m ahead of the first
    quarter[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    quarter[:2, 3] = [0.0, 2.0]
    views = [look(name) for name in ("front", "left")]
    words = vocabulary.load(__file__.split("test/drivable", maxsplit=1)[0] + "config/vocabulary.yaml")
    turned = DrivableArea(GridSpec(-12.0, 12.0, -28.0, 22.0, 0.2), words)

    here = area.update(views).occupancy
    there = turned.update(
        [View(view.mask, view.confidence, view.camera, quarter @ view.T_vehicle_camera) for view in views]
    ).occupancy

    # (x, y) becomes (y, 2 - x): columns of the new grid are the old rows, rows the old columns from the last
    same = there == here.T[::-1]
    assert same.mean() > 0.999  # rounding at cell borders
