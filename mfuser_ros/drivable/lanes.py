"""Where a forward camera is mounted, told by the lane it drives in: pitch, yaw and height.

Lane lines are parallel on the ground, also in a bend, so the pitch is the one at which they come out parallel; the
distance between the two lines of the own lane, known in metres, then gives the height.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mfuser_ros.drivable.camera import CameraModel
from mfuser_ros.drivable.markings import Stroke, find_strokes
from mfuser_ros.errors import CalibrationError, InputError

FEWEST_FRAMES = 3
_STEEPEST = np.radians(30.0)
_NEAR_VANISHING_POINT = 0.012  # of the plane z = 1; about 12 pixels
_FARTHEST = 25.0  # in camera heights
_SAME_LINE = 0.35  # in camera heights, sideways
_FEWEST_POINTS = 12
_LONGEST_STROKES = 120  # whose meetings are candidates for the vanishing point
_LARGEST_RESIDUAL = 0.004  # of the plane z = 1; about 4 pixels


@dataclass(frozen=True, eq=False)
class LanePose:
    """Estimate of a camera's place over the road, with the spread (standard deviation, robust) over the frames.

    The vehicle frame has its origin on the ground below the camera and its x axis along the lane; the roll is taken
    as zero. These are estimates from paint of assumed spacing, not a calibration.
    """

    pitch_rad: float  # positive looks down
    yaw_rad: float  # positive looks to the left of the lane
    height_m: float
    pitch_spread_rad: float
    yaw_spread_rad: float
    height_spread_m: float
    frames: int  # that showed both lines of the lane
    T_vehicle_camera: np.ndarray  # (4, 4)


class LaneFit(NamedTuple):
    """What one frame says of the camera, which is taken to be level from left to right."""

    pitch: float  # radians, positive looks down
    heading: float  # of the lane to the left of the camera's axis, as a slope
    width: float  # between the nearest line to the left and the nearest to the right, in camera heights


def estimate_lane_pose(pictures: Iterable[np.ndarray], camera: CameraModel, *, lane_width_m: float = 3.7) -> LanePose:
    """Pitch, yaw and height of a forward camera from pictures of a marked road.

    Args:
        pictures: uint8 RGB (H, W, 3) of the camera's size, taken while driving along a lane; ten or more that are
            some metres apart average out the vehicle's nodding.
        camera: its intrinsics and lens.
        lane_width_m: distance between the middles of the two lines of the own lane.

    Raises:
        InputError: a picture of another size or type.
        CalibrationError: fewer than three pictures show both lines of the own lane.
    """
    if not 1.0 <= lane_width_m <= 10.0:
        raise CalibrationError(f"lane width {lane_width_m:g} m: give the distance between lane lines, 1 to 10 m")
    frames = [find_strokes(_checked(picture, camera), camera) for picture in pictures]
    fits = fit_lanes(frames)
    if len(fits) < FEWEST_FRAMES:
        raise CalibrationError(
            f"{len(fits)} of {len(frames)} pictures show both lines of the own lane, {FEWEST_FRAMES} are needed: "
            "give more pictures of a marked, fairly straight road or set the camera pose by hand"
        )
    pitch, pitch_spread = centre([fit.pitch for fit in fits])
    yaw, yaw_spread = centre([float(np.arctan(-fit.heading * np.cos(fit.pitch))) for fit in fits])
    height, height_spread = centre([lane_width_m / fit.width for fit in fits])
    pose = camera_pose(pitch, yaw, height)
    return LanePose(pitch, yaw, height, pitch_spread, yaw_spread, height_spread, len(fits), pose)


def fit_lanes(frames: Sequence[Sequence[Stroke]]) -> list[LaneFit]:
    """One fit for each frame with a line to the left and one to the right that all frames' lines agree with."""
    found = _vanishing_point([stroke for strokes in frames for stroke in strokes])
    if found is None:
        return []
    return [fit for strokes in frames if (fit := _fit_frame(strokes, found)) is not None]


def _checked(picture: np.ndarray, camera: CameraModel) -> np.ndarray:
    expected = (camera.height, camera.width, 3)
    if picture.dtype != np.uint8 or picture.shape != expected:
        raise InputError(f"picture is {picture.dtype} {picture.shape}: give uint8 RGB {expected}")
    return picture


def centre(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the standard deviation that the median absolute deviation stands for."""
    middle = float(np.median(values))
    return middle, float(1.4826 * np.median(np.abs(np.array(values) - middle)))


def _vanishing_point(strokes: Sequence[Stroke]) -> tuple[float, float] | None:
    """Point (x, y) of the plane z = 1 through which the most stroke length points; None if no two strokes meet.

    Source: consensus over pairs, Fischler and Bolles, Random Sample Consensus, 1981.
    """
    if len(strokes) < 2:
        return None
    ends = np.array([[stroke.normal[0], stroke.normal[-1]] for stroke in strokes])  # (S, 2, 2) far, near
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    lines = np.column_stack([along[:, 1], -along[:, 0], along[:, 0] * ends[:, 0, 1] - along[:, 1] * ends[:, 0, 0]])
    lines = lines / np.maximum(length, 1e-12)[:, None]
    strongest = np.argsort(-length)[:_LONGEST_STROKES]
    i, j = np.triu_indices(len(strongest), 1)
    meet = np.cross(lines[strongest[i]], lines[strongest[j]])
    meet = meet[np.abs(meet[:, 2]) >= 0.1]  # others are nearly parallel in the picture
    points = meet[:, :2] / meet[:, 2:]
    points = points[(np.abs(np.arctan(points[:, 1])) <= _STEEPEST) & (np.abs(points[:, 0]) <= 0.6)]
    if len(points) == 0:
        return None
    distance = np.abs(points @ lines[:, :2].T + lines[:, 2])
    votes = (length * (distance < _NEAR_VANISHING_POINT)).sum(axis=1)
    best = points[int(np.argmax(votes))]
    return float(best[0]), float(best[1])


def _ground(normal: np.ndarray, pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Ahead and to the left, in camera heights, where points of the plane z = 1 meet the ground."""
    down = normal[:, 1] * np.cos(pitch) + np.sin(pitch)
    down = np.where(down > 1e-4, down, np.nan)
    return (np.cos(pitch) - normal[:, 1] * np.sin(pitch)) / down, -normal[:, 0] / down


def _fit_frame(strokes: Sequence[Stroke], vanishing_point: tuple[float, float]) -> LaneFit | None:
    """One frame's pitch, heading and lane; None if the own lane's two lines are not both there."""
    pitch = float(-np.arctan(vanishing_point[1]))
    lines = _lines(strokes, pitch, -vanishing_point[0] * np.cos(pitch))
    own = _own_lane([offset for offset, _ in lines])
    if own is None:
        return None
    points = [normal for _, normal in lines]
    for reach in (np.radians(2.0), np.radians(0.3), np.radians(0.05)):
        trials = pitch + np.linspace(-reach, reach, 15)
        pitch = float(trials[int(np.argmin([_parallel(points, trial)[0] for trial in trials]))])
    residual, offsets, heading = _parallel(points, pitch)
    if residual > _LARGEST_RESIDUAL:
        return None
    lane = (offsets[own[0]] - offsets[own[1]]) / np.sqrt(1 + heading**2)
    return LaneFit(pitch, heading, float(lane)) if lane > 0 else None


def _lines(strokes: Sequence[Stroke], pitch: float, heading: float) -> list[tuple[float, np.ndarray]]:
    """Strokes that lie behind each other, joined: offset to the left at the camera, and points (N, 2)."""
    placed: list[tuple[float, np.ndarray]] = []
    for stroke in strokes:
        ahead, left = _ground(stroke.normal, pitch)
        if not np.isfinite(ahead).all() or np.median(ahead) > _FARTHEST:
            continue
        slope = np.polynomial.Polynomial.fit(ahead, left, 1).convert().coef[1] if np.ptp(ahead) > 0 else np.inf
        if abs(slope - heading) < 0.12:
            placed.append((float(np.median(left - heading * ahead)), stroke.normal))
    placed.sort(key=lambda entry: entry[0])
    lines: list[list[tuple[float, np.ndarray]]] = []
    for entry in placed:
        if lines and entry[0] - lines[-1][-1][0] < _SAME_LINE:
            lines[-1].append(entry)
        else:
            lines.append([entry])
    joined = [
        (float(np.median([offset for offset, _ in line])), np.concatenate([normal for _, normal in line]))
        for line in lines
    ]
    return [(offset, normal) for offset, normal in joined if len(normal) >= _FEWEST_POINTS]


def _own_lane(offsets: Sequence[float]) -> tuple[int, int] | None:
    """Indices of the nearest line to the left and to the right of the camera."""
    left = [i for i, offset in enumerate(offsets) if offset > 0.2]
    right = [i for i, offset in enumerate(offsets) if offset < -0.2]
    if not left or not right:
        return None
    return min(left, key=lambda i: offsets[i]), max(right, key=lambda i: offsets[i])


def _parallel(lines: Sequence[np.ndarray], pitch: float) -> tuple[float, np.ndarray, float]:
    """How well lines are parallel on the ground at this pitch: residual in the plane z = 1, offsets, heading.

    The lines are y = offset + heading x + bend x^2 with one heading and one bend. Dividing by x turns the equation
    into one in picture coordinates, so that all points weigh by what a pixel is worth.
    """
    rows, targets = [], []
    for index, normal in enumerate(lines):
        ahead, left = _ground(normal, pitch)
        use = np.isfinite(ahead) & (ahead > 0) & (ahead < 2 * _FARTHEST)
        ahead, left = ahead[use], left[use]
        design = np.zeros((len(ahead), len(lines) + 2))
        design[:, index] = 1 / ahead
        design[:, -2], design[:, -1] = 1.0, ahead
        rows.append(design)
        targets.append(left / ahead)
    A, b = np.concatenate(rows), np.concatenate(targets)
    weight = np.ones(len(b))
    for _ in range(4):  # Huber's weights: a stray stroke must not tilt the road
        weighted = A * weight[:, None]
        # Normal equations: five unknowns, well apart, a fifth of the time of a decomposition; the ridge is for a line
        # of which no point is in use.
        solution = np.linalg.solve(weighted.T @ A + 1e-12 * np.eye(A.shape[1]), weighted.T @ b)
        error = np.abs(A @ solution - b)
        weight = np.minimum(1.0, 0.001 / np.maximum(error, 1e-9))
    return float(np.sqrt(np.mean(np.minimum(error, 0.01) ** 2))), solution[:-2], float(solution[-2])


def camera_pose(pitch: float, yaw: float, height: float, roll: float = 0.0) -> np.ndarray:
    """(4, 4) camera optical frame to a vehicle frame with its origin on the ground below the camera.

    Args:
        pitch: radians, positive looks down.
        yaw: radians, positive looks to the left.
        height: metres.
        roll: radians, positive turns clockwise as seen from behind.
    """
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    level = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    right = np.cos(roll) * level + np.sin(roll) * np.cross(forward, level)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[2, 3] = height
    return pose
