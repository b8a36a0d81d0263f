"""What is remembered while a vehicle drives through a scene of exact geometry, and for how long."""

import numpy as np
import pytest
from road_scene import PERSON, Box, Post, Scene, lens_rays, optical_pose

from mfuser_ros import vocabulary
from mfuser_ros.drivable import CameraModel, DrivableArea, GridSpec, View
from mfuser_ros.errors import ConfigurationError, InputError

K = np.array([[250.0, 0, 159.5], [0, 250, 119.5], [0, 0, 1]])
CAMERA = CameraModel(320, 240, K)
RAYS = lens_rays(320, 240, K)
MOUNT = optical_pose(0.0, 0.0, 1.5)  # sees ground from 1.5 * 250 / 119.5 = 3.14 m on
SPEC = GridSpec(-10.0, 20.0, -10.0, 10.0, 0.2)
EVERYWHERE = Scene(half_width=100.0)


@pytest.fixture(scope="module")
def classes():
    return vocabulary.load(__file__.split("test/drivable", maxsplit=1)[0] + "config/vocabulary.yaml")


@pytest.fixture
def area(classes):
    return DrivableArea(SPEC, classes, decay_s=2.0)


def at(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """T_odom_vehicle."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


def look(scene: Scene, vehicle: np.ndarray, *, mount: np.ndarray = MOUNT) -> View:
    mask = scene.render(RAYS, vehicle @ mount)
    return View(mask, np.full_like(mask, 255), CAMERA, mount)


def value(result, x: float, y: float) -> int:
    return int(result.occupancy[int(np.floor((y + 10) / 0.2)), int(np.floor((x + 10) / 0.2))])


def centres(vehicle: np.ndarray) -> np.ndarray:
    """(rows, cols, 2) of the grid's cells in the odometry's frame."""
    lattice = SPEC.lattice()[:-1, :-1] + SPEC.resolution / 2
    return lattice @ vehicle[:2, :2].T + vehicle[:2, 3]


def drive(area: DrivableArea, scene: Scene, poses: list[np.ndarray], *, every_s: float = 0.1):
    """Updates along the way, with the time of each."""
    for step, vehicle in enumerate(poses):
        stamp_s = 1e9 + every_s * step
        yield stamp_s, vehicle, area.update([look(scene, vehicle)], stamp_s=stamp_s, T_odom_vehicle=vehicle)


def curve(steps: int) -> list[np.ndarray]:
    """A bend to the left at 0.35 m and 0.02 rad a step."""
    poses = [at(0.0)]
    for _ in range(steps):
        poses.append(poses[-1] @ at(0.35, 0.0, 0.02))
    return poses


def test_ground_that_was_seen_stays_free_while_the_vehicle_drives_over_it(area):
    *_, (_, _, result) = drive(area, EVERYWHERE, [at(0.35 * step) for step in range(25)])

    assert [value(result, x, 0.1) for x in (-2.0, 0.0, 2.0, 3.0, 5.0)] == [0] * 5
    assert value(result, -5.7, 0.1) == -1  # 8.4 m of way after 3.14 m + 1 m: never seen
    assert value(result, 0.1, 2.5) == 0  # left the picture at 2.5 * 250 / 159.5 = 3.9 m, 1.1 s ago
    assert value(result, 0.1, 5.5) == -1  # 8.6 m: 2.5 s ago
    assert value(result, 0.1, 9.0) == -1


def test_nothing_remembered_on_a_bend_past_things_is_free_where_it_must_not_be(area):
    scene = Scene(
        (Box(9, -2.2, 4, 1.8, 1.5, yaw=0.3), Post(6, 2.5, 0.3, 1.8), Box(14, 5, 2, 2, 2)), half_width=4.0, middle_y=1
    )
    seen_behind = 0
    for _, vehicle, result in drive(area, scene, curve(40)):
        free = centres(vehicle)[result.occupancy == 0]
        assert not scene.under_thing(free).any()
        assert (scene.off_road(free) <= 0).all()
        lattice = SPEC.lattice()[:-1, :-1] + SPEC.resolution / 2
        seen_behind = max(seen_behind, int(((result.occupancy == 0) & (lattice[..., 0] < 2)).sum()))
    assert seen_behind > 300  # 12 m2 beside and behind the camera


def test_hundred_small_turns_take_no_more_from_the_edges_than_one(classes):
    area = DrivableArea(SPEC, classes, decay_s=20.0)
    scene = Scene(half_width=3.0)
    area.update([look(scene, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))
    for step in range(1, 101):
        vehicle = at(0.0, 0.0, 0.02 * np.sin(step))
        result = area.update([], stamp_s=0.1 * step, T_odom_vehicle=vehicle)

    alone = DrivableArea(SPEC, classes).update([look(scene, at(0))])
    columns = slice(80, 120)  # 6 m to 14 m ahead
    width_then = (alone.occupancy[:, columns] == 0).sum(axis=0)
    width_now = (result.occupancy[:, columns] == 0).sum(axis=0)
    assert (width_now >= width_then - 4).all()  # a cell each time it is entered and read, on both sides
    assert (width_now <= width_then + 1).all()  # 14 m away 0.02 rad shift the road by more than a cell


def test_free_ground_is_forgotten_when_it_is_older_than_the_decay(area):
    area.update([look(EVERYWHERE, at(0))], stamp_s=100.0, T_odom_vehicle=at(0))

    until = area.update([], stamp_s=102.0, T_odom_vehicle=at(0))
    after = area.update([], stamp_s=102.001, T_odom_vehicle=at(0))

    assert value(until, 10.1, 0.1) == 0
    assert (after.occupancy == -1).all()


def test_what_stood_stays_occupied_for_the_decay_and_is_unknown_then(area):
    scene = Scene((Post(8, 0, 0.3, 1.8),), half_width=100)
    area.update([look(scene, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    results = [area.update([], stamp_s=t, T_odom_vehicle=at(3.0 * t)) for t in (1.0, 2.0, 2.1)]

    marked = np.argwhere(results[0].occupancy == 100)[:, ::-1] * 0.2 - 9.9
    np.testing.assert_allclose(np.median(marked, axis=0), [4.7, 0.0], atol=0.3)  # 8 m less 0.3 m, less 3 m of way
    assert (results[1].occupancy == 100).any()
    assert not (results[2].occupancy >= 0).any()


def test_things_keep_their_size_over_many_updates(classes):
    area = DrivableArea(SPEC, classes, decay_s=20.0)
    scene = Scene((Post(8, 0, 0.3, 1.8),), half_width=100)
    first = area.update([look(scene, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    for step in range(1, 60):
        vehicle = at(0.02 * step, 0.0, 0.003 * step)
        last = area.update([], stamp_s=0.1 * step, T_odom_vehicle=vehicle)

    assert 0 < (last.occupancy == 100).sum() <= (first.occupancy == 100).sum()


def test_place_that_is_seen_free_again_is_not_occupied_any_more(area):
    area.update([look(Scene((Post(8, 0, 0.3, 1.8),), half_width=100), at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    result = area.update([look(EVERYWHERE, at(0))], stamp_s=0.1, T_odom_vehicle=at(0))

    assert not (result.occupancy == 100).any()
    assert value(result, 7.9, 0.1) == 0
    assert not (area.update([], stamp_s=0.2, T_odom_vehicle=at(0)).occupancy == 100).any()


def test_where_a_view_looks_what_was_free_before_does_not_count(area):
    area.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))
    unsure = look(EVERYWHERE, at(0))
    unsure.confidence[:] = 100

    during = area.update([unsure], stamp_s=0.1, T_odom_vehicle=at(0))
    after = area.update([], stamp_s=0.2, T_odom_vehicle=at(0))

    assert not (during.occupancy == 0).any()
    assert not (after.occupancy == 0).any()


def test_ground_under_something_that_came_is_not_free_from_memory(area):
    area.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))
    car = Box(12, 0, 6, 2, 1.5)  # its foot is seen at 9 m only

    result = area.update([look(Scene((car,), half_width=100), at(0))], stamp_s=0.1, T_odom_vehicle=at(0))

    assert not car.distance(centres(at(0))[result.occupancy == 0]).min() <= 0
    assert value(result, 8.1, 0.1) == 0


def test_person_who_steps_before_the_bumper_takes_the_free_ground_there(area):
    for _ in drive(area, EVERYWHERE, [at(0.35 * step) for step in range(12)]):
        pass
    vehicle = at(0.35 * 12)
    person = Post(vehicle[0, 3] + 2.0, 0.0, 0.25, 1.8, PERSON)  # the picture begins at 3.14 m
    scene = Scene((person,), half_width=100)

    result = area.update([look(scene, vehicle)], stamp_s=1e9 + 1.2, T_odom_vehicle=vehicle)

    free = centres(vehicle)[result.occupancy == 0]
    assert person.distance(free).min() > 0
    assert value(result, 2.1, 1.5) == 0  # beside her
    later = area.update([], stamp_s=1e9 + 1.3, T_odom_vehicle=vehicle)
    assert person.distance(centres(vehicle)[later.occupancy == 0]).min() > 0


def test_side_camera_and_front_camera_in_turn_make_one_area(area):
    left = optical_pose(0.0, 0.0, 1.5, yaw_deg=70)
    area.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    result = area.update([look(EVERYWHERE, at(0), mount=left)], stamp_s=0.05, T_odom_vehicle=at(0))

    assert value(result, 10.1, 0.1) == 0
    assert value(result, 1.0, 7.1) == 0


def test_camera_without_a_picture_leaves_its_ground_to_memory_and_no_longer(area):
    left = optical_pose(0.0, 0.0, 1.5, yaw_deg=70)
    area.update([look(EVERYWHERE, at(0)), look(EVERYWHERE, at(0), mount=left)], stamp_s=0.0, T_odom_vehicle=at(0))

    results = [area.update([look(EVERYWHERE, at(0))], stamp_s=t, T_odom_vehicle=at(0)) for t in (1.0, 2.5)]

    assert [value(result, 1.0, 7.1) for result in results] == [0, -1]
    assert [value(result, 10.1, 0.1) for result in results] == [0, 0]


def test_late_views_never_replace_what_is_newer(area):
    late = look(Scene((Post(8, 0, 0.3, 1.8),), half_width=100), at(0))
    area.update([look(EVERYWHERE, at(0))], stamp_s=10.0, T_odom_vehicle=at(0))

    area.update([late], stamp_s=9.9, T_odom_vehicle=at(0))
    result = area.update([], stamp_s=10.1, T_odom_vehicle=at(0))

    assert value(result, 7.5, 0.1) == 0
    assert value(result, 12.1, 0.1) == 0


@pytest.mark.parametrize(
    ("stamp_s", "vehicle", "kept"),
    [
        (100.5, at(10.0), True),  # 20 m/s
        (100.5, at(60.0), False),  # 120 m/s: the odometry was reset
        (100.1, at(0.0, 0.0, 3.0), False),  # half a turn in a tenth of a second
        (98.5, at(0.0), True),  # a camera that is behind the others
        (90.0, at(0.0), False),  # a bag that starts over
        (1e6, at(0.0), False),  # a clock that was set
    ],
)
def test_jumps_of_time_or_place_start_afresh(area, stamp_s, vehicle, kept):
    area.update([look(EVERYWHERE, at(0))], stamp_s=100.0, T_odom_vehicle=at(0))

    area.update([], stamp_s=stamp_s, T_odom_vehicle=vehicle)

    again = area.update([], stamp_s=stamp_s, T_odom_vehicle=vehicle)
    assert (again.occupancy == 0).any() == kept


def test_without_odometry_views_stand_alone_and_memory_waits(area, classes):
    area.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))
    side = look(EVERYWHERE, at(0), mount=optical_pose(0, 0, 1.5, yaw_deg=90))

    blind = area.update([side], stamp_s=0.5, T_odom_vehicle=None)
    found = area.update([], stamp_s=1.0, T_odom_vehicle=at(0))
    too_late = area.update([], stamp_s=2.5, T_odom_vehicle=at(0))

    np.testing.assert_array_equal(blind.occupancy, DrivableArea(SPEC, classes).update([side]).occupancy)
    assert value(found, 10.1, 0.1) == 0
    assert value(found, 0.1, 8.1) == -1  # what the side view saw had no place
    assert (too_late.occupancy == -1).all()


def test_vehicle_on_its_side_is_no_odometry(area, classes):
    tilted = at(0.0)
    tilted[:3, :3] = [[np.cos(0.4), 0, np.sin(0.4)], [0, 1, 0], [-np.sin(0.4), 0, np.cos(0.4)]]  # 23 degrees
    area.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    assert (area.update([], stamp_s=0.1, T_odom_vehicle=tilted).occupancy == -1).all()


def test_forget_drops_everything(area):
    area.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    area.forget()

    assert (area.update([], stamp_s=0.0, T_odom_vehicle=at(0)).occupancy == -1).all()


def test_kilometres_from_the_odometrys_origin_nothing_changes(classes):
    results = []
    for origin in (0.0, 123_456.0):
        area = DrivableArea(SPEC, classes, decay_s=2.0)
        scene = Scene((Post(origin + 9, 2, 0.3, 1.8),), half_width=100)
        *_, (_, _, result) = drive(area, scene, [at(origin + 0.4 * step) for step in range(12)])
        results.append(result.occupancy)

    assert (results[0] != results[1]).mean() < 2e-3  # rounding at cell borders


def test_long_drive_keeps_what_lies_behind(area):
    poses = [at(3.0 * step, 0.0, 0.001 * step) for step in range(30)]  # 87 m: the window has moved

    *_, (_, _, result) = drive(area, EVERYWHERE, poses)

    assert [value(result, x, 0.1) for x in (-8.0, -3.0, 0.0, 3.0)] == [0] * 4


def test_same_views_give_the_same_result_where_nothing_is_remembered(classes):
    plain = DrivableArea(SPEC, classes)
    scene = Scene((Post(8, 0, 0.3, 1.8),), half_width=100)

    plain.update([look(EVERYWHERE, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))
    result = plain.update([look(scene, at(0))], stamp_s=0.1, T_odom_vehicle=at(0))

    np.testing.assert_array_equal(result.occupancy, DrivableArea(SPEC, classes).update([look(scene, at(0))]).occupancy)


def test_first_moment_with_a_decay_is_that_without(area, classes):
    scene = Scene((Post(8, 0, 0.3, 1.8), Box(12, 3, 4, 2, 1.5)), half_width=5)

    first = area.update([look(scene, at(0))], stamp_s=0.0, T_odom_vehicle=at(0))

    alone = DrivableArea(SPEC, classes).update([look(scene, at(0))])
    changed = first.occupancy != alone.occupancy
    assert not (changed & (first.occupancy == 0)).any()
    # a mark entered and read comes back up to a cell beside itself, on ground that is not seen to be free
    assert changed.mean() < 2e-3


def test_time_is_asked_for_with_a_decay(area):
    with pytest.raises(InputError, match="stamp_s is missing"):
        area.update([])


@pytest.mark.parametrize("pose", [np.eye(3), 2 * np.eye(4), np.full((4, 4), np.nan), at(1e12)])
def test_odometry_that_is_no_pose_is_refused(area, pose):
    with pytest.raises(InputError, match="T_odom_vehicle"):
        area.update([], stamp_s=0.0, T_odom_vehicle=pose)


@pytest.mark.parametrize("decay_s", [-1.0, 61.0, float("nan")])
def test_decay_out_of_range_is_refused(classes, decay_s):
    with pytest.raises(ConfigurationError, match="decay_s"):
        DrivableArea(SPEC, classes, decay_s=decay_s)


def test_grid_too_long_to_be_remembered_is_refused(classes):
    with pytest.raises(ConfigurationError, match="too large for decay_s 1"):
        DrivableArea(GridSpec(-1000, 1000, -5, 5, 0.2), classes, decay_s=1.0)
