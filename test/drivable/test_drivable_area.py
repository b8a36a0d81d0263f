"""The rules of the drivable area, one by one, on a level camera 1.5 m above the ground with f = 500."""

import tracemalloc

import numpy as np
import pytest
from road_scene import BUILDING, CAR, PERSON, ROAD, SIDEWALK, SKY, TERRAIN, Box, Post, Scene, lens_rays, optical_pose

from mfuser_ros import vocabulary
from mfuser_ros.drivable import CameraModel, DrivableArea, GridSpec, View
from mfuser_ros.errors import CalibrationError, ConfigurationError, InputError

K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
CAMERA = CameraModel(640, 480, K)
RAYS = lens_rays(640, 480, K)
POSE = optical_pose(0.0, 0.0, 1.5)  # sees ground from 1.5 * 500 / 239.5 = 3.13 m on
SPEC = GridSpec(-5.0, 40.0, -15.0, 15.0, 0.2)
EVERYWHERE = Scene(half_width=100.0)
VOCABULARY_FILE = __file__.split("test/drivable", maxsplit=1)[0] + "config/vocabulary.yaml"


@pytest.fixture(scope="module")
def classes():
    return vocabulary.load(VOCABULARY_FILE)


@pytest.fixture(scope="module")
def area(classes):
    return DrivableArea(SPEC, classes)


def look(scene: Scene, *, pose: np.ndarray = POSE, sure: int = 255) -> View:
    mask = scene.render(RAYS, pose)
    return View(mask, np.full_like(mask, sure), CAMERA, pose)


def cell(x: float, y: float) -> tuple[int, int]:
    return int(np.floor((y + 15) / 0.2)), int(np.floor((x + 5) / 0.2))


def value(result, x: float, y: float) -> int:
    return int(result.occupancy[cell(x, y)])


def test_open_road_in_view_is_free_and_nothing_else_is_known(area):
    result = area.update([look(EVERYWHERE)])

    assert result.occupancy.dtype == np.int8
    assert result.occupancy.shape == (150, 225)
    assert set(np.unique(result.occupancy)) == {-1, 0}
    assert value(result, 10.1, 0.1) == 0
    assert value(result, 10.1, 6.1) == 0  # half the view is 319.5 / 500 * 10.1 = 6.45 m wide
    assert value(result, 10.1, 6.7) == -1
    assert value(result, 2.9, 0.1) == -1  # below the picture's lowest row
    assert value(result, -2.0, 0.1) == -1
    assert result.contacts.shape == (0, 4)


def test_ground_where_a_pixel_covers_more_than_a_metre_is_unknown(area, classes):
    result = area.update([look(EVERYWHERE)])
    nearer = DrivableArea(SPEC, classes, max_pixel_length=0.3).update([look(EVERYWHERE)])

    columns = np.flatnonzero((result.occupancy == 0).any(axis=0))
    assert columns.max() * 0.2 - 5 == pytest.approx(np.sqrt(1.0 * 750), abs=0.4)  # x^2 / (1.5 * 500) = 1
    columns = np.flatnonzero((nearer.occupancy == 0).any(axis=0))
    assert columns.max() * 0.2 - 5 == pytest.approx(np.sqrt(0.3 * 750), abs=0.4)


def test_wall_is_occupied_at_its_foot_and_unknown_behind(area):
    result = area.update([look(Scene((Box(12.5, 0, 5, 6, 3, BUILDING),), half_width=100))])

    assert value(result, 9.7, 0.1) == 0
    assert value(result, 10.1, 0.1) == 100
    assert value(result, 11.0, 0.1) == -1
    assert value(result, 20.0, 0.1) == -1
    assert value(result, 20.0, 8.0) == 0  # past the wall


def test_road_seen_over_a_low_thing_is_unknown(area):
    low = Box(8.5, 0, 1.0, 2, 0.3, CAR)  # from 1.5 m one sees the ground 0.3 / 1.2 * 9 = 2.25 m behind its far edge
    view = look(Scene((low,), half_width=100))

    result = area.update([view])

    assert (view.mask[285:300, 320] == ROAD).all()  # 12.4 m to 16.5 m ahead: 750 / 60.5 and 750 / 45.5
    assert value(result, 7.7, 0.1) == 0
    assert value(result, 14.1, 0.1) == -1


def test_contact_tells_place_and_class(area):
    result = area.update([look(Scene((Box(12.5, 0, 5, 2, 1.2, CAR), Post(8.0, 3.0, 0.2, 1.7)), half_width=100))])

    cars = result.contacts[result.contacts[:, 3] == CAR]
    people = result.contacts[result.contacts[:, 3] == PERSON]
    assert result.contacts.dtype == np.float32
    assert len(cars) == pytest.approx(100, abs=2)  # one per bearing: 2 m at 10 m is 100 columns
    np.testing.assert_allclose(cars[:, 0], 10.0, atol=10**2 / 750)  # one pixel of ground
    assert np.abs(cars[:, 1]).max() == pytest.approx(1.0, abs=0.04)
    np.testing.assert_allclose(np.linalg.norm(people[:, :2] - [8, 3], axis=1), 0.2, atol=0.12)
    assert (result.contacts[:, 2] == 0).all()


def test_thing_whose_foot_is_below_the_picture_gives_no_contact(area):
    near = Box(2.0, 0.0, 1.0, 0.8, 3.0, CAR)  # stands where the picture does not reach

    result = area.update([look(Scene((near,), half_width=100))])

    assert len(result.contacts) == 0
    assert (result.occupancy != 100).all()
    assert value(result, 10.1, 0.1) == -1
    assert value(result, 10.1, 5.1) == 0


def test_person_beside_the_line_of_sight_marks_no_ground_behind_her(area):
    result = area.update([look(Scene((Post(8.0, 0.0, 0.25, 1.8), Post(9.0, -3.0, 0.25, 1.8)), half_width=100))])

    marked = np.argwhere(result.occupancy == 100) * 0.2 + [-15 + 0.1, -5 + 0.1]  # y, x
    distance = np.minimum(np.hypot(marked[:, 1] - 8, marked[:, 0]), np.hypot(marked[:, 1] - 9, marked[:, 0] + 3))
    assert len(marked)
    assert distance.max() < 0.25 + 0.2 + 1.5 * 9**2 / 750


@pytest.mark.parametrize("class_id", [SIDEWALK, TERRAIN, SKY, 255])
def test_what_is_neither_free_nor_stands_is_unknown(area, class_id):
    view = look(EVERYWHERE)
    view.mask[view.mask == ROAD] = class_id

    result = area.update([view])

    assert (result.occupancy == -1).all()
    assert len(result.contacts) == 0
    assert result.boundary.shape == (0, 2)


def test_roles_decide_what_is_free(area, classes):
    view = look(Scene(half_width=2.0, sidewalk_width=2.0))

    assert value(area.update([view]), 10.1, 3.0) == -1
    assert value(DrivableArea(SPEC, classes, ("drivable", "walkable")).update([view]), 10.1, 3.0) == 0
    assert value(DrivableArea(SPEC, classes, ("drivable", "walkable")).update([view]), 10.1, 5.0) == -1


def test_unsure_pixels_are_unknown_whatever_they_show(area, classes):
    scene = Scene((Box(12.5, 0, 5, 6, 3, BUILDING),), half_width=100)

    unsure = area.update([look(scene, sure=127)])  # 127 / 255 = 0.498
    sure = area.update([look(scene, sure=128)])  # 0.502
    anyhow = DrivableArea(SPEC, classes, ("drivable",), 0.0).update([look(scene, sure=0)])

    assert (unsure.occupancy == -1).all()
    assert len(unsure.contacts) == 0
    np.testing.assert_array_equal(sure.occupancy, anyhow.occupancy)
    assert value(sure, 10.1, 0.1) == 100


def test_thing_with_an_unsure_border_stands_where_its_border_does(area):
    view = look(Scene((Box(12.5, 0, 5, 6, 3, BUILDING),), half_width=100))
    view.confidence[306:320] = 90  # the foot is in row 314: 239.5 + 750 / 10

    result = area.update([view])

    np.testing.assert_allclose(result.contacts[:, 0], 10.0, atol=10**2 / 750)
    assert value(result, 10.1, 0.1) == 100


def test_one_doubtful_pixel_takes_its_cell_and_no_cell_two_pixels_away(area):
    sure = area.update([look(EVERYWHERE)]).occupancy
    view = look(EVERYWHERE)
    row, column = 400, 320  # on the ground at 1.5 * 500 / 160.5 = 4.67 m, straight ahead
    view.mask[row, column] = 255

    lost = np.argwhere((area.update([view]).occupancy != 0) & (sure == 0)) * 0.2 + [-15.0, -5.0]  # y, x of the corner

    assert 1 <= len(lost) <= 4
    for y, x in lost:
        rows = 239.5 + 750 / np.array([x + 0.2, x])
        columns = 319.5 - 500 * np.array([[y, y + 0.2]]).T / np.array([x, x + 0.2])
        assert rows[0] - 1 <= row <= rows[1] + 1
        assert columns.min() - 1 <= column <= columns.max() + 1


def test_road_cut_off_from_the_vehicle_is_unknown(area):
    view = look(EVERYWHERE)
    view.mask[400:415] = SIDEWALK  # a strip across the whole picture from 4.3 m to 4.7 m

    result = area.update([view])

    assert value(result, 3.9, 0.1) == 0
    assert value(result, 10.1, 0.1) == -1


def test_ground_beside_the_picture_joins_nothing_to_the_vehicle(area):
    view = look(EVERYWHERE)
    view.mask[420:] = SIDEWALK  # what is left of the road touches the sides of the picture but not its lowest row

    assert (area.update([view]).occupancy == -1).all()


def test_cells_that_touch_at_a_corner_are_not_connected(area):
    free = np.zeros((4, 4), np.uint8)
    free[0, 0] = free[1, 1] = free[1, 2] = 1
    blind = np.zeros((4, 4), bool)
    blind[0, 1] = True
    from mfuser_ros.drivable.area import _connected

    joined = _connected(free, blind)  # (0, 0) and (1, 1) touch the blind cell, (1, 2) touches (1, 1)

    np.testing.assert_array_equal(np.argwhere(joined), [[0, 0], [1, 1], [1, 2]])
    blind[0, 1] = False
    blind[0, 0] = True
    np.testing.assert_array_equal(np.argwhere(_connected(free, blind)), [[0, 0]])


def test_looking_backwards_is_looking_forwards_turned_round(area):
    things = (Box(12, 3, 4, 2, 1.5), Post(8, -2, 0.25, 1.75))
    behind = (Box(-12, -3, 4, 2, 1.5), Post(-8, 2, 0.25, 1.75))
    spec = GridSpec(-20.0, 20.0, -10.0, 10.0, 0.2)
    symmetric = DrivableArea(spec, vocabulary.load(VOCABULARY_FILE))

    ahead = symmetric.update([look(Scene(things, half_width=6))])
    back = symmetric.update([look(Scene(behind, half_width=6), pose=optical_pose(0, 0, 1.5, yaw_deg=180))])

    assert (ahead.occupancy != back.occupancy[::-1, ::-1]).mean() < 1e-3  # rounding at cell borders
    assert (ahead.occupancy == 0).sum() > 1000


def test_views_all_round_are_fused(classes):
    spec = GridSpec(-15.0, 15.0, -15.0, 15.0, 0.25)
    scene = Scene((Post(6, 0, 0.3, 1.7), Post(0, 6, 0.3, 1.7), Post(-6, 0, 0.3, 1.7)), half_width=100)
    poses = [optical_pose(0, 0, 1.5, yaw_deg=yaw, pitch_deg=10) for yaw in range(0, 360, 60)]

    result = DrivableArea(spec, classes).update([look(scene, pose=pose) for pose in poses])

    def at(x, y):
        return result.occupancy[int((y + 15) / 0.25), int((x + 15) / 0.25)]

    for x, y in ((5.7, 0.1), (0.1, 5.7), (-5.7, 0.1)):
        assert at(x, y) == 100
        assert at(1.6 * x, 1.6 * y) == -1
        assert at(0.8 * x, 0.8 * y) == 0
    assert at(0.1, -9.6) == 0
    assert {round(float(np.hypot(x, y)), 0) for x, y in result.contacts[:, :2]} == {6.0}


def test_camera_that_sees_its_own_foot_starts_there(classes):
    spec = GridSpec(-3.0, 3.0, -3.0, 3.0, 0.1)
    pose = optical_pose(0.5, 0.0, 2.0, pitch_deg=90)
    view = look(Scene((Post(1.0, 0.2, 0.1, 0.5),), half_width=100), pose=pose)

    result = DrivableArea(spec, classes).update([view])

    def at(x, y):
        return result.occupancy[int((y + 3) / 0.1), int((x + 3) / 0.1)]

    assert at(0.55, 0.05) == 0
    assert at(-0.35, 0.05) == 0  # 239.5 / 500 * 2 = 0.96 m behind the foot is in the picture
    assert at(-0.65, 0.05) == -1
    assert at(0.93, 0.18) == 100
    assert at(1.3, 0.33) == -1
    assert len(np.unique(np.arctan2(result.boundary[:, 1], result.boundary[:, 0]).round(1))) > 3


def test_camera_that_sees_no_ground_knows_nothing(area):
    view = look(EVERYWHERE, pose=optical_pose(0, 0, 1.5, pitch_deg=-60))

    result = area.update([view])

    assert (result.occupancy == -1).all()
    assert (len(result.contacts), len(result.boundary)) == (0, 0)


def test_no_view_gives_an_unknown_grid(area):
    assert (area.update([]).occupancy == -1).all()


def test_same_views_give_the_same_result_whatever_came_before(area, classes):
    scene = Scene((Box(12.5, 0, 5, 6, 3, BUILDING),), half_width=100)
    first = DrivableArea(SPEC, classes).update([look(scene)])

    area.update([look(EVERYWHERE)])
    again = area.update([look(scene)])

    for name in ("occupancy", "contacts", "boundary"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_changed_pose_is_planned_anew(area):
    area.update([look(EVERYWHERE)])
    view = look(EVERYWHERE)
    moved = View(view.mask, view.confidence, CAMERA, optical_pose(5.0, 0.0, 1.5))

    assert value(area.update([moved]), 7.0, 0.1) == -1
    assert value(area.update([moved]), 9.0, 0.1) == 0


def test_masks_may_be_views_into_other_arrays(area):
    view = look(Scene((Box(12.5, 1, 5, 2, 3, CAR),), half_width=100))
    wide = np.zeros((480, 1280), np.uint8)
    wide[:, ::2] = view.mask
    expected = area.update([view])

    result = area.update([View(wide[:, ::2], view.confidence, CAMERA, POSE)])

    np.testing.assert_array_equal(result.occupancy, expected.occupancy)


def test_mask_of_another_size_is_refused_naming_both(area):
    mask = np.zeros((360, 640), np.uint8)
    with pytest.raises(InputError, match="mask is 640x360, the camera is 640x480"):
        area.update([View(mask, mask, CAMERA, POSE)])


def test_confidence_that_is_no_uint8_is_refused(area):
    mask = np.zeros((480, 640), np.uint8)
    with pytest.raises(InputError, match="confidence is float32"):
        area.update([View(mask, np.ones((480, 640), np.float32), CAMERA, POSE)])


def test_camera_below_the_ground_is_refused(area):
    mask = np.zeros((480, 640), np.uint8)
    with pytest.raises(CalibrationError, match="above the ground"):
        area.update([View(mask, mask, CAMERA, optical_pose(z=-1.0))])


def test_picture_too_large_to_be_planned_is_refused_before_memory_is_taken(area):
    # 8192 x 7800 pixels are 64 million, the most that the node takes
    camera = CameraModel(8192, 7800, [[4000, 0, 4095.5], [0, 4000, 3899.5], [0, 0, 1]])
    mask = np.broadcast_to(np.uint8(0), (7800, 8192))

    tracemalloc.start()
    try:
        with pytest.raises(CalibrationError, match="output_size"):
            area.update([View(mask, mask, camera, optical_pose(0, 0, 1.5, pitch_deg=20))])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000_000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"free_roles": ("drivable", "static")}, "static"),
        ({"free_roles": "drivable"}, "choose from"),
        ({"min_confidence": 1.2}, "1.2"),
        ({"min_confidence": float("nan")}, "nan"),
        ({"max_pixel_length": 0.0}, "max_pixel_length 0"),
    ],
)
def test_setting_out_of_range_is_refused(classes, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        DrivableArea(SPEC, classes, **settings)
