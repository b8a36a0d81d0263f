"""CameraInfo and pose parameters: what they mean, worked by hand, and what is refused."""

from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuser_ros.drivable import CameraModel
from mfuser_ros.errors import CalibrationError, ConfigurationError
from mfuser_ros.node.calibration import check_pose, intrinsics, pose_matrix, resized_info

K = [500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0]
P = [450.0, 0.0, 300.0, 0.0, 0.0, 460.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def camera_info(**changes):
    """A message like sensor_msgs/CameraInfo of a 640x480 camera."""
    fields = {
        "width": 640,
        "height": 480,
        "k": K,
        "p": P,
        "d": [0.1, -0.2, 0.001, 0.002, 0.03],
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**fields | changes)


def test_plain_camera_info_is_taken_as_it_is():
    found = intrinsics(camera_info(), rectified=False)

    assert (found.width, found.height, found.model) == (640, 480, "plumb_bob")
    assert found.D == (0.1, -0.2, 0.001, 0.002, 0.03)
    np.testing.assert_array_equal(found.K, np.reshape(K, (3, 3)))


def test_rectified_picture_uses_p_and_no_distortion():
    found = intrinsics(camera_info(distortion_model="unheard of"), rectified=True)

    assert (found.D, found.model) == ((), "plumb_bob")
    np.testing.assert_array_equal(found.K, [[450, 0, 300], [0, 460, 200], [0, 0, 1]])


@pytest.mark.parametrize(("height", "width"), [(480, 640), (240, 320), (720, 1280), (100, 64)])
def test_resized_camera_info_sees_the_same_directions_at_the_same_place_of_the_picture(height, width):
    region = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=200)
    for changes in ({}, {"binning_x": 2, "binning_y": 4}, {"roi": region, "binning_x": 2}):
        info = camera_info(**changes)
        for rectified in (False, True):
            before = intrinsics(info, rectified=rectified)
            after = intrinsics(resized_info(info, height, width), rectified=rectified)

            assert (after.width, after.height, after.D) == (width, height, before.D)
            # the picture's corners lie half a pixel beyond the centres of its outermost pixels
            for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
                rays = [
                    np.linalg.solve(found.K, [corner[0] * found.width - 0.5, corner[1] * found.height - 0.5, 1.0])
                    for found in (before, after)
                ]
                np.testing.assert_allclose(rays[0], rays[1], atol=1e-12)
    assert info.width == 640  # the message itself stays as it is


def test_resized_camera_info_keeps_the_baseline_of_a_stereo_pair():
    stereo = camera_info(p=[450.0, 0.0, 300.0, -45.0, 0.0, 460.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0])

    p = np.reshape(resized_info(stereo, 240, 320).p, (3, 4))

    assert p[0, 3] / p[0, 0] == pytest.approx(-0.1)  # minus the baseline in metres


def test_no_model_and_no_coefficients_is_a_camera_without_distortion():
    assert intrinsics(camera_info(distortion_model="", d=[]), rectified=False).D == ()


def test_binning_by_two_halves_focal_length_and_keeps_the_centre_of_the_view():
    found = intrinsics(camera_info(binning_x=2, binning_y=2), rectified=False)

    assert (found.width, found.height) == (320, 240)
    assert found.K[0, 0] == 250
    assert found.K[1, 1] == 255
    # 319.5 is the middle between the two halves of the full picture: so is 159.5 in the binned one
    assert found.K[0, 2] == pytest.approx(159.5)
    assert found.K[1, 2] == pytest.approx(119.5)


def test_region_of_interest_moves_the_principal_point():
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=200, height=300)

    found = intrinsics(camera_info(roi=roi), rectified=False)

    assert (found.width, found.height) == (200, 300)
    assert (found.K[0, 2], found.K[1, 2], found.K[0, 0]) == (219.5, 199.5, 500)


def test_region_of_interest_counts_in_unbinned_pixels():
    roi = SimpleNamespace(x_offset=100, y_offset=0, width=400, height=0)

    found = intrinsics(camera_info(roi=roi, binning_x=4), rectified=False)

    assert found.width == 100
    assert found.K[0, 0] == 125
    assert found.K[0, 2] == pytest.approx((219.5 + 0.5) / 4 - 0.5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"k": [0.0] * 9}, "k[0] is 0, the camera is not calibrated"),
        ({"k": [math.nan, *K[1:]]}, "not finite"),
        ({"k": [*K[:2], math.inf, *K[3:]]}, "not finite"),
        ({"k": [-500.0, *K[1:]]}, "focal lengths -500 and 510"),
        ({"k": [*K[:4], 0.0, *K[5:]]}, "focal lengths 500 and 0"),
        ({"d": [math.nan] * 5}, "camera_info.d holds a number that is not finite"),
        ({"distortion_model": "thin_prism"}, "'thin_prism' is unknown: publish one of plumb_bob"),
        ({"distortion_model": ""}, "'' is unknown"),
        ({"d": [0.1] * 3}, "camera_info.d has 3 numbers, plumb_bob takes 5"),
        ({"distortion_model": "rational_polynomial"}, "5 numbers, rational_polynomial takes 8"),
        ({"distortion_model": "equidistant"}, "5 numbers, equidistant takes 4"),
        ({"width": 0}, "size 0x480"),
        ({"roi": SimpleNamespace(x_offset=500, y_offset=0, width=200, height=480)}, "leaves the picture of 640x480"),
    ],
)
def test_camera_info_that_cannot_be_used_is_refused_with_one_line(changes, text):
    with pytest.raises(CalibrationError) as caught:
        intrinsics(camera_info(**changes), rectified=False)

    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


NUMBERS = st.floats(width=64) | st.integers(-2000, 2000).map(float)


@given(
    k=st.lists(NUMBERS, min_size=9, max_size=9) | st.just(K),
    d=st.lists(NUMBERS, max_size=9),
    model=st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "", "other"]),
    size=st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
    binning=st.integers(0, 70000),
    rectified=st.booleans(),
)
@settings(deadline=None)
def test_whatever_a_camera_info_holds_it_is_a_camera_or_an_error_of_ours(k, d, model, size, binning, rectified):
    info = camera_info(k=k, d=d, distortion_model=model, width=size[0], height=size[1], binning_x=binning)

    with contextlib.suppress(CalibrationError):
        found = intrinsics(info, rectified=rectified)
        CameraModel(*found)


def test_uncalibrated_projection_of_a_rectified_picture_is_refused():
    with pytest.raises(CalibrationError, match=r"camera_info\.p\[0\] is 0"):
        intrinsics(camera_info(p=[0.0] * 12), rectified=True)


def test_roll_and_yaw_of_minus_90_degrees_look_forward():
    T = pose_matrix([1.0, 2.0, 1.5, -math.pi / 2, 0.0, -math.pi / 2])

    # optical z is forward (x), optical x is to the right (-y), optical y is down (-z)
    np.testing.assert_allclose(T[:3, :3], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    np.testing.assert_array_equal(T[:, 3], [1, 2, 1.5, 1])


def test_angles_turn_about_fixed_axes_in_the_order_roll_pitch_yaw():
    roll, pitch, yaw = 0.3, -0.5, 1.1

    def about(axis: int, angle: float) -> np.ndarray:
        R = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        R[[i, j], [i, j]] = math.cos(angle)
        R[i, j], R[j, i] = -math.sin(angle), math.sin(angle)
        return R

    expected = about(2, yaw) @ about(1, pitch) @ about(0, roll)
    np.testing.assert_allclose(pose_matrix([0, 0, 0, roll, pitch, yaw])[:3, :3], expected, atol=1e-12)


def test_camera_below_the_ground_is_refused():
    forward = pose_matrix([0.0, 0.0, 1.5, -math.pi / 2, 0.0, -math.pi / 2])

    check_pose(forward, ground_z=0.0, name="front.pose")
    with pytest.raises(ConfigurationError, match=r"front\.pose puts the camera at z = 1\.5 m and the ground is at 2 m"):
        check_pose(forward, ground_z=2.0, name="front.pose")


@pytest.mark.parametrize(("degrees", "refused"), [(0, True), (4.9, True), (5.1, False), (90, False), (180, False)])
def test_optical_axis_near_straight_up_is_refused(degrees, refused):
    T = pose_matrix([0.0, 0.0, 1.5, math.radians(degrees), 0.0, 0.0])  # roll turns the axis from up

    if refused:
        with pytest.raises(ConfigurationError, match="points the optical axis straight up"):
            check_pose(T, ground_z=0.0, name="front.pose")
    else:
        check_pose(T, ground_z=0.0, name="front.pose")
