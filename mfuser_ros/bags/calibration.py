"""The intrinsics that travel in a CameraInfo, and the YAML file that ROS camera drivers keep them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mfuser_ros.errors import CalibrationError

DistortionModel = Literal["", "plumb_bob", "rational_polynomial", "equidistant"]

COEFFICIENTS: dict[str, tuple[int, ...]] = {
    "": (0,),
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (8,),
    "equidistant": (4,),
}
"""How many distortion coefficients each model of sensor_msgs/distortion_models.hpp has."""


@dataclass(frozen=True, eq=False)
class CameraCalibration:
    """Intrinsics of one camera as sensor_msgs/CameraInfo states them.

    Attributes:
        width, height: size of the picture that they hold for, pixels.
        distortion_model: name of the model; empty for none.
        D: (N,) float64 distortion coefficients in the order of OpenCV.
        K: (3, 3) float64 pinhole intrinsics of the raw picture, pixels.
        R: (3, 3) float64 rectification.
        P: (3, 4) float64 projection of the rectified picture.
        frame_id: optical frame of the camera, empty where the source states none.
    """

    width: int
    height: int
    distortion_model: str
    D: np.ndarray
    K: np.ndarray
    R: np.ndarray
    P: np.ndarray
    frame_id: str = ""


class _Matrix(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(gt=0)
    cols: int = Field(gt=0)
    data: tuple[float, ...]

    @model_validator(mode="after")
    def _numbers_fill_the_matrix(self) -> _Matrix:
        if len(self.data) != self.rows * self.cols:
            raise ValueError(f"{self.rows} x {self.cols} needs {self.rows * self.cols} numbers, found {len(self.data)}")
        if not np.isfinite(self.data).all():
            raise ValueError("every number must be finite")
        return self

    def array(self) -> np.ndarray:
        return np.array(self.data, np.float64).reshape(self.rows, self.cols)


class _CalibrationFile(BaseModel):
    """The form that camera_calibration writes and camera_info_manager reads, plus an optional frame_id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_width: int = Field(gt=0)
    image_height: int = Field(gt=0)
    camera_name: str = ""
    frame_id: str = ""
    camera_matrix: _Matrix
    distortion_model: DistortionModel
    distortion_coefficients: _Matrix | None = None
    rectification_matrix: _Matrix | None = None
    projection_matrix: _Matrix | None = None

    @model_validator(mode="after")
    def _shapes_fit(self) -> _CalibrationFile:
        wanted = {"camera_matrix": (3, 3), "rectification_matrix": (3, 3), "projection_matrix": (3, 4)}
        for name, shape in wanted.items():
            matrix: _Matrix | None = getattr(self, name)
            if matrix is not None and (matrix.rows, matrix.cols) != shape:
                raise ValueError(f"{name} must be {shape[0]} x {shape[1]}, found {matrix.rows} x {matrix.cols}")
        count = 0 if self.distortion_coefficients is None else len(self.distortion_coefficients.data)
        if count not in COEFFICIENTS[self.distortion_model]:
            allowed = " or ".join(map(str, COEFFICIENTS[self.distortion_model]))
            raise ValueError(f"distortion_model {self.distortion_model!r} has {allowed} coefficients, found {count}")
        if self.camera_matrix.data[0] <= 0 or self.camera_matrix.data[4] <= 0:
            raise ValueError("camera_matrix needs focal lengths above 0: calibrate the camera first")
        return self


def pinhole(width: int, height: int, horizontal_view_deg: float) -> CameraCalibration:
    """Intrinsics of a camera without distortion that sees so many degrees from side to side, such as a phone's.

    Raises:
        CalibrationError: the angle is not between 0 and 180.
    """
    if not 0 < horizontal_view_deg < 180:
        raise CalibrationError(f"horizontal view of {horizontal_view_deg:g} degrees: must lie between 0 and 180")
    focal = width / 2 / np.tan(np.radians(horizontal_view_deg) / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return CameraCalibration(width, height, "plumb_bob", np.zeros(5), K, np.eye(3), np.hstack([K, np.zeros((3, 1))]))


def load_calibration(path: str | Path) -> CameraCalibration:
    """Intrinsics in the YAML file at `path` (the form of ROS camera_calibration; `frame_id` may be added).

    Raises:
        CalibrationError: the file is missing, is no YAML, or a matrix is wrong; the text names the file and the key.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"{file}: cannot be read ({error.strerror}): give a camera calibration YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CalibrationError(f"{file}: is no YAML ({reason}): give a camera calibration YAML") from error
    try:
        stated = _CalibrationFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise CalibrationError(f"{file}: {where}: {first['msg']}: mend the calibration YAML") from error
    K = stated.camera_matrix.array()
    D = np.zeros(0) if stated.distortion_coefficients is None else stated.distortion_coefficients.array().ravel()
    R = np.eye(3) if stated.rectification_matrix is None else stated.rectification_matrix.array()
    # A monocular camera without a stated projection keeps its intrinsics in the rectified picture.
    P = np.hstack([K, np.zeros((3, 1))]) if stated.projection_matrix is None else stated.projection_matrix.array()
    return CameraCalibration(
        stated.image_width, stated.image_height, stated.distortion_model, D, K, R, P, frame_id=stated.frame_id
    )
