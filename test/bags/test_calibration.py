import numpy as np
import pytest

from mfuser_ros.bags import load_calibration
from mfuser_ros.errors import CalibrationError

SOUND = """
image_width: 64
image_height: 48
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [100, 0, 31, 0, 101, 23, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0.2, 0.3, 0.4, 0.5]}
"""


def write(tmp_path, text):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    return path


def test_ros_calibration_file_is_read(tmp_path):
    calibration = load_calibration(write(tmp_path, SOUND))
    assert (calibration.width, calibration.height, calibration.distortion_model) == (64, 48, "plumb_bob")
    np.testing.assert_array_equal(calibration.K, [[100, 0, 31], [0, 101, 23], [0, 0, 1]])
    np.testing.assert_array_equal(calibration.D, [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_array_equal(calibration.R, np.eye(3))
    np.testing.assert_array_equal(calibration.P, [[100, 0, 31, 0], [0, 101, 23, 0], [0, 0, 1, 0]])


def test_stated_rectification_and_projection_are_kept(tmp_path):
    text = SOUND + (
        "rectification_matrix: {rows: 3, cols: 3, data: [0, 1, 0, 1, 0, 0, 0, 0, 1]}\n"
        "projection_matrix: {rows: 3, cols: 4, data: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}\nframe_id: eye\n"
    )
    calibration = load_calibration(write(tmp_path, text))
    np.testing.assert_array_equal(calibration.R, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(calibration.P.ravel(), np.arange(1, 13))
    assert calibration.frame_id == "eye"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            SOUND.replace("rows: 1, cols: 5", "rows: 1, cols: 4"),
            "distortion_coefficients.*1 x 4 needs 4 numbers, found 5",
        ),
        (SOUND.replace("plumb_bob", "fisheye"), "distortion_model"),
        (SOUND.replace("plumb_bob", "equidistant"), "'equidistant' has 4 coefficients, found 5"),
        (SOUND.replace("[100,", "[0,"), "camera_matrix needs focal lengths above 0"),
        (SOUND.replace("[100,", "[.nan,"), "every number must be finite"),
        (SOUND.replace("image_width: 64\n", ""), "image_width: Field required"),
        (SOUND + "colour: red\n", "colour: Extra inputs are not permitted"),
        (SOUND.replace("rows: 3, cols: 3, data", "rows: 9, cols: 1, data"), "camera_matrix must be 3 x 3, found 9 x 1"),
        ("a: [", "is no YAML"),
        ("", "file: "),
    ],
)
def test_wrong_file_is_one_line_with_path_and_key(tmp_path, text, said):
    with pytest.raises(CalibrationError, match=f"camera.yaml: .*{said}") as raised:
        load_calibration(write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CalibrationError, match=r"gone.yaml: cannot be read \(No such file or directory\)"):
        load_calibration(tmp_path / "gone.yaml")
