import numpy as np
import pytest
from witness_cameras import BARREL, WITNESSES

from mfuser_ros.drivable import CameraModel
from mfuser_ros.errors import CalibrationError

K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])


@pytest.mark.parametrize("name", WITNESSES)
def test_projects_like_opencv(name):
    witness = WITNESSES[name]
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-0.62, 0.62, (500, 2)), np.ones(500)]) * rng.uniform(1, 30, (500, 1))

    expected = witness.project(points)

    np.testing.assert_allclose(witness.camera.project(points), expected, atol=1e-6)


@pytest.mark.parametrize("name", WITNESSES)
def test_ray_of_a_pixel_projects_back_onto_it(name):
    camera = WITNESSES[name].camera
    u, v = np.meshgrid(np.linspace(0, camera.width - 1, 23), np.linspace(0, camera.height - 1, 17))
    pixels = np.stack([u, v], axis=-1)

    rays = camera.rays(pixels)

    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-12)
    np.testing.assert_allclose(camera.project(rays), pixels, atol=1e-6)


def test_pixel_centres_are_at_whole_coordinates():
    camera = CameraModel(640, 480, K)

    np.testing.assert_allclose(
        camera.project(np.array([0.2, -0.1, 1.0])), [420, 190]
    )  # 320 + 0.2 * 500, 240 - 0.1 * 500


def test_point_behind_a_pinhole_has_no_pixel():
    assert np.isnan(CameraModel(640, 480, K).project(np.array([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0]]))).all()


def test_fisheye_sees_what_lies_beside_it():
    camera = CameraModel(640, 480, [200, 0, 320, 0, 200, 240, 0, 0, 1], (0, 0, 0, 0), "equidistant")

    # 90 degrees from the axis: r = f * theta = 200 * pi / 2
    np.testing.assert_allclose(camera.project(np.array([1.0, 0.0, 0.0])), [320 + 100 * np.pi, 240])


def test_direction_that_the_lens_polynomial_folds_back_has_no_pixel():
    # r (1 - 0.3 r^2) turns round at r = 1 / sqrt(0.9) = 1.054; at r = 1.5 it comes back to 0.4875, well inside
    camera = CameraModel(640, 480, K, (-0.3, 0, 0, 0))

    outside, inside = camera.project(np.array([[1.5, 0.0, 1.0], [0.5, 0.0, 1.0]]))

    assert np.isnan(outside).all()
    np.testing.assert_allclose(inside, [320 + 500 * 0.5 * (1 - 0.3 * 0.25), 240])


def test_corner_that_no_direction_reaches_has_no_ray():
    camera = CameraModel(640, 480, [250, 0, 320, 0, 250, 240, 0, 0, 1], (-0.3, 0, 0, 0))  # largest radius 0.703 * 250

    assert np.isnan(camera.rays(np.array([0.0, 0.0]))).all()


def test_cameras_of_equal_values_are_equal():
    a, b = CameraModel(640, 480, K, BARREL), CameraModel(640, 480, K.reshape(-1).tolist(), np.array(BARREL))

    assert a == b
    assert hash(a) == hash(b)
    assert a != CameraModel(640, 480, K)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((640, 480, np.zeros((3, 3))), "positive"),
        ((640, 480, np.full(9, np.nan)), "not finite"),
        ((640, 480, np.diag([500.0, -500, 1])), "positive"),
        ((640, 480, np.diag([500.0, 500, 0])), "last row"),
        ((640, 480, np.eye(4)), "3x3"),
        ((0, 480, K), "size"),
        ((640, 480, K, (0.1, 0.1, 0.0)), "0 or 4 or 5"),
        ((640, 480, K, (0.1,) * 5, "rational_polynomial"), "0 or 8"),
        ((640, 480, K, (0.1,) * 8, "plumb_bob"), "D has 8"),
        ((640, 480, K, (0.1,) * 5, "equidistant"), "0 or 4"),
        ((640, 480, K, (np.inf,) * 4), "not finite"),
        ((640, 480, K, (), "thin_prism"), "unknown lens model 'thin_prism'"),
        ((640, 480, K, (0.1,) * 4, ""), "unknown lens model"),
    ],
)
def test_unusable_calibration_is_refused(arguments, words):
    with pytest.raises(CalibrationError, match=words):
        CameraModel(*arguments)


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", "equidistant", ""])
def test_no_coefficients_means_none_of_them_bends(model):
    centre = CameraModel(640, 480, K, (), model).project(np.array([[0.0, 0, 1], [1e-4, 0, 1]]))

    np.testing.assert_allclose(centre, [[320, 240], [320.05, 240]], atol=1e-6)


@pytest.mark.parametrize(
    ("model", "D"),
    [("plumb_bob", [-0.2, 0.05, 0.001, 0, 0]), ("rational_polynomial", [0.1] * 8), ("equidistant", [0.01, 0, 0, 0])],
)
def test_part_of_a_picture_sees_its_pixels_along_the_rays_of_the_whole(model, D):
    camera = CameraModel(640, 480, [500, 0, 320, 0, 510, 240, 0, 0, 1], D, model)

    part = camera.cropped(100, 50, 300, 200)

    pixels = np.array([[0.0, 0.0], [299.0, 199.0], [150.5, 20.25]])
    assert (part.width, part.height) == (300, 200)
    np.testing.assert_allclose(part.rays(pixels), camera.rays(pixels + np.array([100, 50])), atol=1e-12)
