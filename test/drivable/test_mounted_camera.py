import numpy as np
import pytest
from road_scene import optical_pose
from witness_cameras import WITNESSES

from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.ground import MountedCamera
from mfuser_ros.errors import CalibrationError

CAMERA = CameraModel(641, 481, [[500, 0, 320], [0, 500, 240], [0, 0, 1]])


def test_level_camera_sees_the_ground_where_similar_triangles_say():
    mounted = MountedCamera(CAMERA, optical_pose(2.0, 0.0, 1.5))

    # 7.5 m ahead of the camera: 1.5 / 7.5 * 500 = 100 rows below the middle; 1.5 m to the left: 100 columns
    np.testing.assert_allclose(mounted.project(np.array([9.5, 1.5])), [220, 340])


def test_ground_behind_a_level_camera_has_no_pixel():
    assert np.isnan(MountedCamera(CAMERA, optical_pose(2.0, 0.0, 1.5)).project(np.array([1.0, 0.0]))).all()


def test_pixel_length_grows_with_the_square_of_the_distance():
    mounted = MountedCamera(CAMERA, optical_pose(0.0, 0.0, 1.5))

    # x^2 / (h f): 7.5^2 / 750 and 15^2 / 750
    np.testing.assert_allclose(mounted.pixel_length(np.array([[7.5, 0.0], [15.0, 0.0]])), [0.075, 0.3], rtol=1e-3)


def test_projection_agrees_with_opencv_through_the_pose():
    witness = WITNESSES["plumb_bob"]
    points = np.random.default_rng(2).uniform([8, -2], [30, 2], (200, 2))
    solid = np.column_stack([points, np.zeros(200)]) - witness.pose[:3, 3]

    expected = witness.project(solid @ witness.pose[:3, :3])

    np.testing.assert_allclose(MountedCamera(witness.camera, witness.pose).project(points), expected, atol=1e-6)


def scaled(pose: np.ndarray) -> np.ndarray:
    pose = pose.copy()
    pose[:3, :3] *= 1.01
    return pose


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        (optical_pose(z=-0.1), "above the ground"),
        (optical_pose(z=0.0), "above the ground"),
        (optical_pose(pitch_deg=-87), "straight up"),
        (scaled(optical_pose()), "no rotation"),
        (optical_pose() * np.nan, "not finite"),
        (np.eye(3), "4x4"),
    ],
)
def test_impossible_pose_is_refused(pose, words):
    with pytest.raises(CalibrationError, match=words):
        MountedCamera(CAMERA, pose)


def test_steep_camera_that_is_not_quite_straight_up_is_accepted():
    assert MountedCamera(CAMERA, optical_pose(pitch_deg=-80)).height_m == 1.5
