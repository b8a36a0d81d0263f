"""Lens models: from a direction in the camera's optical frame to a pixel and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.polynomial import Polynomial

from mfuser_ros.errors import CalibrationError

LensModel = Literal["plumb_bob", "rational_polynomial", "equidistant"]

_COEFFICIENTS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (0, 8),
    "equidistant": (0, 4),
}
_NEWTON_STEPS = 30
_NEWTON_TOLERANCE = 1e-10  # in the normalised plane: a ten-millionth of a pixel


class CameraModel:
    """A calibrated camera: size, intrinsics and lens. Pixel centres are at whole coordinates, as in OpenCV and ROS.

    Args:
        width: picture width in pixels.
        height: picture height in pixels.
        K: (3, 3) or 9 numbers row by row: intrinsics in pixels.
        D: lens coefficients in OpenCV's order: none, 4 or 5 (plumb_bob: k1 k2 p1 p2 [k3]), 8 (rational_polynomial:
            k1 k2 p1 p2 k3 k4 k5 k6), 4 (equidistant: k1 k2 k3 k4 of cv2.fisheye). Empty means all zero.
        model: name of the lens model as in sensor_msgs/CameraInfo; "" is taken as plumb_bob when D is empty.

    Raises:
        CalibrationError: the size is not positive, K is singular or not finite, the model is unknown, or D has
            another length than the model needs.

    Sources: OpenCV's documentation of calib3d (Brown-Conrady with the rational terms) and of fisheye (Kannala and
    Brandt, A Generic Camera Model, PAMI 2006).
    """

    def __init__(
        self,
        width: int,
        height: int,
        K: np.ndarray | Sequence[float] | Sequence[Sequence[float]],
        D: np.ndarray | Sequence[float] = (),
        model: str = "plumb_bob",
    ) -> None:
        if int(width) < 2 or int(height) < 2:
            raise CalibrationError(f"camera size {width}x{height}: width and height must be 2 pixels or more")
        self.width, self.height = int(width), int(height)
        self.K = _checked_intrinsics(K)
        self.D, self.model = _checked_lens(D, model)
        self._reach = _reach(self.model, self.D)

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """The camera that sees a part of the picture: the same lens, the principal point counted from its corner.

        Args:
            x: column of the part's upper left pixel.
            y: its row.
            width: of the part, pixels.
            height: of the part, pixels.
        """
        K = self.K.copy()
        K[0, 2] -= x
        K[1, 2] -= y
        return CameraModel(width, height, K, self.D[: max(_COEFFICIENTS[self.model])], self.model)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for two cameras that see alike."""
        return (self.width, self.height, self.model, self.K.tobytes(), self.D.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CameraModel) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"CameraModel({self.width}, {self.height}, {self.K.tolist()}, {self.D.tolist()}, {self.model!r})"

    def project(self, points_camera: np.ndarray) -> np.ndarray:
        """Pixels of points in the optical frame (x right, y down, z forward).

        Args:
            points_camera: (..., 3) points or directions, any unit.

        Returns:
            (..., 2) float64 column and row, also beyond the picture; NaN where the lens cannot image the direction:
            behind a pinhole, or past the angle at which the lens polynomial turns round.
        """
        points = np.asarray(points_camera, np.float64)
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.model == "equidistant":
                radius = np.hypot(x, y)
                theta = np.arctan2(radius, z)
                scale = np.where(radius > 0, self._bend(theta) / radius, 1.0)
                scale = np.where(theta < self._reach, scale, np.nan)
                a, b = x * scale, y * scale
            else:
                depth = np.where(z > 0, z, np.nan)
                a, b = x / depth, y / depth
                inside = a * a + b * b < self._reach**2
                a, b = self._distort(np.where(inside, a, np.nan), b)
        return np.stack([a * self.K[0, 0] + b * self.K[0, 1] + self.K[0, 2], b * self.K[1, 1] + self.K[1, 2]], axis=-1)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Unit directions in the optical frame that are seen at `pixels`: the inverse of `project`.

        Args:
            pixels: (..., 2) column and row.

        Returns:
            (..., 3) unit vectors; NaN where no direction is imaged at that pixel.
        """
        pixels = np.asarray(pixels, np.float64)
        b = (pixels[..., 1] - self.K[1, 2]) / self.K[1, 1]
        a = (pixels[..., 0] - self.K[0, 2] - b * self.K[0, 1]) / self.K[0, 0]
        if self.model == "equidistant":
            bent = np.hypot(a, b)
            theta = self._unbend(bent)
            scale = np.where(bent > 0, np.sin(theta) / np.where(bent > 0, bent, 1.0), 1.0)
            return np.stack([a * scale, b * scale, np.cos(theta)], axis=-1)
        x, y = self._undistort(a, b)
        directions = np.stack([x, y, np.ones_like(x)], axis=-1)
        return np.asarray(directions / np.linalg.norm(directions, axis=-1, keepdims=True))

    def contains(self, pixels: np.ndarray) -> np.ndarray:
        """(...) bool: whether pixels (..., 2) lie within the outermost pixel centres; False for NaN."""
        with np.errstate(invalid="ignore"):
            u, v = pixels[..., 0], pixels[..., 1]
            return np.asarray((u >= 0) & (u <= self.width - 1) & (v >= 0) & (v <= self.height - 1))

    def _bend(self, theta: np.ndarray) -> np.ndarray:
        s = theta * theta
        k1, k2, k3, k4 = self.D
        return np.asarray(theta * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))))

    def _unbend(self, bent: np.ndarray) -> np.ndarray:
        """Bisection, because Newton's method leaves the valid range near a turning point."""
        low, high = np.zeros_like(bent), np.full_like(bent, self._reach)
        possible = bent <= self._bend(np.asarray(self._reach))
        for _ in range(50):
            middle = (low + high) / 2
            above = self._bend(middle) > bent
            high = np.where(above, middle, high)
            low = np.where(above, low, middle)
        return np.where(possible, (low + high) / 2, np.nan)

    def _distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k1, k2, p1, p2, k3, k4, k5, k6 = self.D
        s = x * x + y * y
        radial = (1 + s * (k1 + s * (k2 + s * k3))) / (1 + s * (k4 + s * (k5 + s * k6)))
        return (
            x * radial + 2 * p1 * x * y + p2 * (s + 2 * x * x),
            y * radial + p1 * (s + 2 * y * y) + 2 * p2 * x * y,
        )

    def _undistort(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newton's method from the distorted point, its steps shortened where they would leave the lens's reach."""
        x, y = np.array(a, np.float64), np.array(b, np.float64)
        if not self.D.any():
            return x, y
        radius = np.hypot(x, y)
        shrink = np.minimum(1.0, 0.95 * self._reach / np.maximum(radius, 1e-12))
        x, y = x * shrink, y * shrink
        step = 1e-6
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                fa, fb = self._distort(x, y)
                ra, rb = fa - a, fb - b
                if not np.any(np.hypot(ra, rb) > _NEWTON_TOLERANCE):
                    break
                xa, xb = self._distort(x + step, y)
                ya, yb = self._distort(x, y + step)
                j11, j21, j12, j22 = (xa - fa) / step, (xb - fb) / step, (ya - fa) / step, (yb - fb) / step
                determinant = j11 * j22 - j12 * j21
                dx, dy = (j22 * ra - j12 * rb) / determinant, (j11 * rb - j21 * ra) / determinant
                limit = np.minimum(1.0, 0.3 / np.maximum(np.hypot(dx, dy), 1e-12))
                x, y = x - limit * dx, y - limit * dy
            fa, fb = self._distort(x, y)
            found = (np.hypot(fa - a, fb - b) < 1e-7) & (np.hypot(x, y) < self._reach)
        return np.where(found, x, np.nan), np.where(found, y, np.nan)


def _checked_intrinsics(K: np.ndarray | Sequence[float] | Sequence[Sequence[float]]) -> np.ndarray:
    mend = "publish the CameraInfo of a calibrated camera"
    try:
        matrix = np.array(K, np.float64).reshape(3, 3)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"camera intrinsics K have shape {np.shape(K)}, not 3x3: {mend}") from error
    if not np.isfinite(matrix).all():
        raise CalibrationError(f"camera intrinsics K hold a number that is not finite: {mend}")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise CalibrationError(f"focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g} must be positive: {mend}")
    if matrix[1, 0] != 0 or not np.array_equal(matrix[2], [0, 0, 1]):
        raise CalibrationError(f"camera intrinsics K are not upper triangular with a last row 0 0 1: {mend}")
    matrix.setflags(write=False)
    return matrix


def _checked_lens(D: np.ndarray | Sequence[float], model: str) -> tuple[np.ndarray, LensModel]:
    coefficients = np.array(D, np.float64).reshape(-1)
    if model == "" and coefficients.size == 0:
        model = "plumb_bob"
    for known in get_args(LensModel):
        if model == known:
            allowed = _COEFFICIENTS[known]
            if coefficients.size not in allowed:
                expected = " or ".join(map(str, allowed))
                raise CalibrationError(f"lens model {model} has {expected} coefficients, D has {coefficients.size}")
            if not np.isfinite(coefficients).all():
                raise CalibrationError(
                    "lens coefficients D hold a number that is not finite: calibrate the camera again"
                )
            full = np.zeros(4 if known == "equidistant" else 8)
            full[: coefficients.size] = coefficients
            full.setflags(write=False)
            return full, known
    raise CalibrationError(f"unknown lens model {model!r}: use one of {', '.join(get_args(LensModel))}")


def _reach(model: LensModel, D: np.ndarray) -> float:
    """Where the lens polynomial turns round: an angle (equidistant) or a radius in the plane z = 1.

    Beyond it a polynomial fitted to the picture maps directions outside the field of view back into it.
    """
    if model == "equidistant":
        k1, k2, k3, k4 = D
        slope, limit = Polynomial([1, 0, 3 * k1, 0, 5 * k2, 0, 7 * k3, 0, 9 * k4]), np.pi
        return min(limit, _first_positive_root(slope))
    k1, k2, _, _, k3, k4, k5, k6 = D
    s = Polynomial([0, 1])
    numerator, denominator = Polynomial([1, k1, k2, k3]), Polynomial([1, k4, k5, k6])
    slope = (numerator + 2 * s * numerator.deriv()) * denominator - 2 * s * numerator * denominator.deriv()
    return float(np.sqrt(min(_first_positive_root(slope), _first_positive_root(denominator))))


def _first_positive_root(polynomial: Polynomial) -> float:
    roots = polynomial.trim().roots()
    real = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    return float(real.min()) if real.size else np.inf
