"""Whether a camera still looks as its pose says: pitch and height told by the road itself.

Lines along the road (painted ones, or its edges) are parallel on the ground, so they meet at the horizon, which gives
the pitch; the distance between two of them, known in metres, gives the height.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mfuser_ros.drivable.camera import CameraModel
from mfuser_ros.drivable.ground import MountedCamera
from mfuser_ros.drivable.lanes import FEWEST_FRAMES, LaneFit, camera_pose, centre, fit_lanes
from mfuser_ros.drivable.markings import Stroke, find_edges, find_strokes
from mfuser_ros.errors import ConfigurationError, InputError
from mfuser_ros.vocabulary import Vocabulary

ROAD_ROLES = ("drivable",)
BESIDE_ROLES = ("walkable", "ground", "static")
METHOD_ERROR_RAD, METHOD_ERROR_SHARE = float(np.radians(0.05)), 0.005
"""What is left with perfect pictures (docs/benchmarks/calibrate.json): frames of a vehicle that stands agree, and prove
nothing."""


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """A camera's place as the road tells it; spreads are robust standard deviations over the frames."""

    evidence: Literal["lane lines", "road edges"]
    frames: int  # that showed a line on either side
    pitch_rad: float  # positive looks down
    pitch_spread_rad: float
    height_m: float | None  # None: no width is known
    height_spread_m: float | None
    T_vehicle_camera: np.ndarray  # (4, 4) the stated pose with this pitch and, where it is known, this height

    @property
    def pitch_error_rad(self) -> float:
        """Standard error of the pitch, as far as frames are independent; never less than the method's own."""
        return max(self.pitch_spread_rad / float(np.sqrt(self.frames)), METHOD_ERROR_RAD)

    @property
    def height_error_m(self) -> float | None:
        """Likewise of the height, the width taken as right."""
        if self.height_m is None or self.height_spread_m is None:
            return None
        return max(self.height_spread_m / float(np.sqrt(self.frames)), METHOD_ERROR_SHARE * self.height_m)


@dataclass(frozen=True)
class Drift:
    """How far the estimate is from the stated pose, and whether that is more than allowed."""

    pitch_rad: float  # positive: looks further down than stated
    height_m: float | None  # positive: higher than stated
    beyond: bool
    text: str  # one line for people


class RoadWatch:
    """Collects looks at the road and compares them with the pose that is in use.

    Keep one for each camera, `look` at about one frame a second while the vehicle drives, and ask for `drift`.

    Args:
        camera: the lens.
        T_vehicle_camera: (4, 4) the pose in use, camera optical frame to vehicle frame; ground is z = 0. Its roll is
            taken as right, the pitch and height are put to the test.
        vocabulary: what the ids in the masks mean.
        lane_width_m: distance between the middles of the two lines of the own lane; None: not known.
        road_width_m: distance between the edges of the road, used where no lane lines are seen; None: not known.
        looks: how many are kept; older ones are dropped.

    Raises:
        CalibrationError: a pose that cannot be used.
        ConfigurationError: a width that no road has.
    """

    def __init__(
        self,
        camera: CameraModel,
        T_vehicle_camera: np.ndarray,
        vocabulary: Vocabulary,
        *,
        lane_width_m: float | None = 3.5,
        road_width_m: float | None = None,
        looks: int = 60,
    ) -> None:
        for name, width in (("lane", lane_width_m), ("road", road_width_m)):
            if width is not None and not 1.0 <= width <= 50.0:
                raise ConfigurationError(f"{name} width {width:g} m: give the distance between its lines, 1 to 50 m")
        self._camera = camera
        mounted = MountedCamera(camera, T_vehicle_camera)
        self._pose = mounted.pose
        R = mounted.pose[:3, :3]
        self._pitch = float(np.arcsin(np.clip(-R[2, 2], -1, 1)))
        self._yaw = float(np.arctan2(R[1, 2], R[0, 2]))
        self._roll = float(np.arctan2(-R[2, 0], -R[2, 1]))
        self._road = _table(vocabulary, ROAD_ROLES)
        self._beside = _table(vocabulary, BESIDE_ROLES)
        self._widths = {"lane lines": lane_width_m, "road edges": road_width_m}
        self._looks: deque[tuple[list[Stroke], list[Stroke]]] = deque(maxlen=looks)

    @property
    def looks(self) -> int:
        """How many frames are kept, whatever they show."""
        return len(self._looks)

    def forget(self) -> None:
        """Start afresh: the camera was moved on purpose."""
        self._looks.clear()

    def look(self, mask: np.ndarray, picture: np.ndarray | None = None) -> None:
        """Keep what one frame shows of lines along the road.

        Args:
            mask: (height, width) uint8 class ids.
            picture: (height, width, 3) uint8 RGB; without it there are road edges, and no lane lines.

        Raises:
            InputError: an array of another size or type.
        """
        size = (self._camera.height, self._camera.width)
        for name, array, shape in (("mask", mask, size), ("picture", picture, (*size, 3))):
            if array is not None and (array.dtype != np.uint8 or array.shape != shape):
                raise InputError(f"{name} is {array.dtype} {array.shape}: give uint8 {shape}")
        road = self._road[mask]
        paint = [] if picture is None else find_strokes(picture, self._camera, road)
        edges = find_edges(road, self._beside[mask], self._camera)
        self._looks.append((self._levelled(paint), self._levelled(edges)))

    def estimate(self) -> PoseEstimate | None:
        """From lane lines, else from the road's edges; None where too few frames show either."""
        for evidence in ("lane lines", "road edges"):
            fits = fit_lanes([look[evidence == "road edges"] for look in self._looks])
            if len(fits) >= FEWEST_FRAMES:
                return self._estimate(evidence, fits)
        return None

    def drift(
        self, *, pitch_bound_rad: float, height_bound_m: float, fewest_frames: int = FEWEST_FRAMES
    ) -> Drift | None:
        """How far the pose in use is from the estimate; None where fewer frames than that tell.

        A drift is beyond its bound only if it exceeds it by more than twice the standard error.
        """
        found = self.estimate()
        if found is None or found.frames < fewest_frames:
            return None
        pitch = found.pitch_rad - self._pitch
        beyond = [abs(pitch) - 2 * found.pitch_error_rad > pitch_bound_rad]
        text = f"pitch {np.degrees(pitch):+.2f} degrees"
        height = None
        if found.height_m is not None and found.height_error_m is not None:
            height = found.height_m - float(self._pose[2, 3])
            beyond.append(abs(height) - 2 * found.height_error_m > height_bound_m)
            text += f", height {height:+.2f} m"
        text += f" against the pose in use, from {found.evidence} in {found.frames} of {self.looks} frames"
        return Drift(pitch, height, any(beyond), text)

    def _estimate(self, evidence: Literal["lane lines", "road edges"], fits: Sequence[LaneFit]) -> PoseEstimate:
        pitch, pitch_spread = centre([fit.pitch for fit in fits])
        width = self._widths[evidence]
        height = spread = None
        if width is not None:
            height, spread = centre([width / fit.width for fit in fits])
        pose = camera_pose(pitch, self._yaw, float(self._pose[2, 3]) if height is None else height, self._roll)
        pose[:2, 3] = self._pose[:2, 3]
        return PoseEstimate(evidence, len(fits), pitch, pitch_spread, height, spread, pose)

    def _levelled(self, strokes: Sequence[Stroke]) -> list[Stroke]:
        """As a camera without roll sees them."""
        cos, sin = np.cos(self._roll), np.sin(self._roll)
        return [Stroke(stroke.normal @ np.array([[cos, sin], [-sin, cos]])) for stroke in strokes]


def _table(vocabulary: Vocabulary, roles: Sequence[str]) -> np.ndarray:
    table = np.zeros(256, bool)
    table[list(vocabulary.ids_with_role(roles))] = True
    return table
