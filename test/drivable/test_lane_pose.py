import numpy as np
import pytest
from road_scene import Scene, fine_rays, optical_pose, paint_lanes

from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.lanes import estimate_lane_pose
from mfuser_ros.errors import CalibrationError, InputError

K = np.array([[600.0, 0, 359.5], [0, 600, 199.5], [0, 0, 1]])
D = (-0.25, 0.05, 0.0005, -0.0005, 0.0)
CAMERA = CameraModel(720, 400, K, D)


@pytest.fixture(scope="module")
def rays():
    return fine_rays(720, 400, K, D)


def drive(rays, *, pitch_deg: float, yaw_deg: float, height: float, bend: float = 0.0) -> list[np.ndarray]:
    """Four pictures 3 m apart along a lane of 3.7 m, a solid line on the left and a dashed one on the right."""
    pictures = []
    for way in (0.0, 3.0, 6.0, 9.0):
        if bend:
            turn = way / bend
            x, y, course = bend * np.sin(turn), bend * (1 - np.cos(turn)), np.degrees(turn)
        else:
            x, y, course = way, 0.0, 0.0
        pose = optical_pose(x, y, height, pitch_deg=pitch_deg, yaw_deg=yaw_deg + course)
        scene = Scene(bend_radius=bend, middle_y=0.2)
        pictures.append(paint_lanes(scene, rays, pose, (1.85, 5.55), dashed=(-1.85, -5.55)))
    return pictures


@pytest.mark.parametrize(
    ("pitch_deg", "yaw_deg", "height", "bend"),
    [
        (3.0, 0.0, 1.4, 0.0),
        (-2.0, 1.5, 1.2, 0.0),
        (6.0, -2.0, 1.6, 0.0),
        (2.0, 0.5, 1.3, 300.0),
        (2.0, 0.0, 2.5, -250.0),
    ],
)
def test_painted_lane_gives_back_the_pose(rays, pitch_deg, yaw_deg, height, bend):
    pose = estimate_lane_pose(
        drive(rays, pitch_deg=pitch_deg, yaw_deg=yaw_deg, height=height, bend=bend), CAMERA, lane_width_m=3.7
    )

    assert np.degrees(pose.pitch_rad) == pytest.approx(pitch_deg, abs=0.15)
    assert np.degrees(pose.yaw_rad) == pytest.approx(yaw_deg, abs=0.25)
    assert pose.height_m == pytest.approx(height, rel=0.02)
    assert pose.height_spread_m < 0.02
    expected = optical_pose(0, 0, height, pitch_deg=pitch_deg, yaw_deg=yaw_deg)
    np.testing.assert_allclose(pose.T_vehicle_camera, expected, atol=0.05)


def test_height_goes_with_the_assumed_lane_width(rays):
    pictures = drive(rays, pitch_deg=3.0, yaw_deg=0.0, height=1.4)

    wide = estimate_lane_pose(pictures, CAMERA, lane_width_m=3.7)
    narrow = estimate_lane_pose(pictures, CAMERA, lane_width_m=3.0)

    assert narrow.height_m == pytest.approx(wide.height_m * 3.0 / 3.7)
    assert narrow.pitch_rad == wide.pitch_rad


def test_one_nodding_frame_does_not_move_the_estimate(rays):
    steady = drive(rays, pitch_deg=3.0, yaw_deg=0.0, height=1.4)
    nod = drive(rays, pitch_deg=4.0, yaw_deg=0.0, height=1.4)[:1]

    assert np.degrees(estimate_lane_pose([*steady, *nod], CAMERA).pitch_rad) == pytest.approx(3.0, abs=0.15)


def test_road_without_paint_is_refused(rays):
    bare = paint_lanes(Scene(), rays, optical_pose(0, 0, 1.4, pitch_deg=3), ())

    with pytest.raises(CalibrationError, match="0 of 4 pictures"):
        estimate_lane_pose([bare] * 4, CAMERA)


def test_two_frames_are_too_few(rays):
    with pytest.raises(CalibrationError, match="2 of 2 pictures show both lines"):
        estimate_lane_pose(drive(rays, pitch_deg=3.0, yaw_deg=0.0, height=1.4)[:2], CAMERA)


def test_picture_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"\(400, 720, 3\)"):
        estimate_lane_pose([np.zeros((480, 640, 3), np.uint8)], CAMERA)


def test_lane_width_that_no_road_has_is_refused():
    with pytest.raises(CalibrationError, match="370"):
        estimate_lane_pose([], CAMERA, lane_width_m=370)
