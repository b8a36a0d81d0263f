"""Labelled road scenes with exact geometry: the witness for the drivable area.

Everything here is done a second way: lenses are inverted by OpenCV, pictures are made by casting a ray through each
pixel centre, and what is free, hidden or touched is asked of the geometry, never of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

ROAD, SIDEWALK, BUILDING, POLE, TERRAIN, SKY, PERSON, CAR = 0, 1, 2, 5, 9, 10, 11, 13


@dataclass(frozen=True)
class Box:
    """A vehicle, a wall or a house: a block on the ground with its centre at x, y, turned by yaw (radians)."""

    x: float
    y: float
    length: float
    width: float
    height: float
    class_id: int = CAR
    yaw: float = 0.0

    def entry(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) multiples of directions (N, 3) at which rays from origin (3,) enter; inf if they miss."""
        turn = np.array([[np.cos(self.yaw), np.sin(self.yaw)], [-np.sin(self.yaw), np.cos(self.yaw)]])
        start = np.append(turn @ (origin[:2] - [self.x, self.y]), origin[2])
        rays = np.column_stack([directions[:, :2] @ turn.T, directions[:, 2]])
        low = np.array([-self.length / 2, -self.width / 2, 0.0])
        high = np.array([self.length / 2, self.width / 2, self.height])
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (low - start) / rays, (high - start) / rays
        enter, leave = np.fmin(a, b).max(axis=1), np.fmax(a, b).min(axis=1)
        return np.where((enter < leave) & (enter > 0), enter, np.inf)

    def outline(self, spacing: float) -> np.ndarray:
        """(P, 2) points round the foot."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [self.length / 2, self.width / 2]
        corners = corners @ np.array([[cos, sin], [-sin, cos]]) + [self.x, self.y]
        sides = []
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            count = max(2, int(np.ceil(np.linalg.norm(end - start) / spacing)))
            sides.append(start + np.linspace(0, 1, count, endpoint=False)[:, None] * (end - start))
        return np.concatenate(sides)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(...) metres from ground points (..., 2) to the foot, 0 under the block."""
        offset = points - [self.x, self.y]
        along = offset[..., 0] * np.cos(self.yaw) + offset[..., 1] * np.sin(self.yaw)
        across = -offset[..., 0] * np.sin(self.yaw) + offset[..., 1] * np.cos(self.yaw)
        return np.hypot(np.maximum(np.abs(along) - self.length / 2, 0), np.maximum(np.abs(across) - self.width / 2, 0))


@dataclass(frozen=True)
class Post:
    """A person or a pole: an upright cylinder."""

    x: float
    y: float
    radius: float
    height: float
    class_id: int = PERSON

    def entry(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """As for Box."""
        start = origin[:2] - [self.x, self.y]
        a = (directions[:, :2] ** 2).sum(axis=1)
        b = directions[:, :2] @ start
        inside = b * b - a * (start @ start - self.radius**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(np.where(inside > 0, inside, np.nan))
            ends = np.stack([(0.0 - origin[2]) / directions[:, 2], (self.height - origin[2]) / directions[:, 2]])
            enter = np.fmax((-b - root) / a, ends.min(axis=0))
            leave = np.fmin((-b + root) / a, ends.max(axis=0))
            return np.where((enter < leave) & (enter > 0) & np.isfinite(root), enter, np.inf)

    def outline(self, spacing: float) -> np.ndarray:
        """As for Box."""
        count = max(12, int(np.ceil(2 * np.pi * self.radius / spacing)))
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        return np.array([self.x, self.y]) + self.radius * np.column_stack([np.cos(angle), np.sin(angle)])

    def distance(self, points: np.ndarray) -> np.ndarray:
        """As for Box."""
        return np.maximum(np.linalg.norm(points - [self.x, self.y], axis=-1) - self.radius, 0.0)


@dataclass(frozen=True)
class Scene:
    """A flat road that runs along x and bends with `bend_radius` (to the left if positive, 0 is straight).

    On both sides a kerb of `kerb_height` rises to a sidewalk, beyond which there is terrain of the same height.
    Things stand at z = 0, on the sidewalk too.
    """

    things: tuple[Box | Post, ...] = ()
    half_width: float = 5.0
    middle_y: float = 0.0
    bend_radius: float = 0.0
    sidewalk_width: float = 2.0
    kerb_height: float = 0.0

    def off_road(self, points: np.ndarray) -> np.ndarray:
        """(...) metres from ground points (..., 2) to the road, 0 on it."""
        return np.maximum(self._aside(points) - self.half_width, 0.0)

    def _aside(self, points: np.ndarray) -> np.ndarray:
        if self.bend_radius == 0:
            return np.abs(points[..., 1] - self.middle_y)
        centre = [0.0, self.middle_y + self.bend_radius]
        return np.abs(np.linalg.norm(points - centre, axis=-1) - abs(self.bend_radius))

    def first_hit(self, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest thing along rays: multiples (N,) of the directions (inf if none) and class ids (N,)."""
        nearest = np.full(len(directions), np.inf)
        classes = np.zeros(len(directions), np.uint8)
        for thing in self.things:
            entry = thing.entry(origin, directions)
            closer = entry < nearest
            nearest[closer], classes[closer] = entry[closer], thing.class_id
        return nearest, classes

    def render(self, directions: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """(H, W) uint8 labels seen along `directions` (H, W, 3) of the optical frame; 255 where they are NaN."""
        height, width = directions.shape[:2]
        origin = pose[:3, 3]
        rays = directions.reshape(-1, 3) @ pose[:3, :3].T
        labels = np.full(len(rays), SKY, np.uint8)
        down = rays[:, 2] < -1e-9
        at_ground = np.full(len(rays), np.inf)
        at_ground[down] = -origin[2] / rays[down, 2]
        ground = origin[:2] + at_ground[down, None] * rays[down, :2]
        over = origin[:2] + (self.kerb_height - origin[2]) / rays[down, 2:] * rays[down, :2]
        aside, aside_over = self._aside(ground), self._aside(over)
        labels[down] = np.where(aside <= self.half_width, ROAD, SIDEWALK)
        raised = aside_over > self.half_width  # meets the top of the kerb before the ground
        beyond = self.half_width + self.sidewalk_width
        labels[np.flatnonzero(down)[raised]] = np.where(aside_over[raised] <= beyond, SIDEWALK, TERRAIN)
        nearest, classes = self.first_hit(origin, rays)
        stands = nearest < at_ground
        labels[stands] = classes[stands]
        labels[~np.isfinite(rays).all(axis=1)] = 255
        return labels.reshape(height, width)

    def under_thing(self, points: np.ndarray) -> np.ndarray:
        """(...) bool: ground points (..., 2) below something that stands."""
        return np.logical_or.reduce(
            [np.zeros(points.shape[:-1], bool), *(t.distance(points) <= 0 for t in self.things)]
        )

    def visible(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """(...) bool: nothing between the camera at origin (3,) and ground points (..., 2)."""
        flat = points.reshape(-1, 2)
        towards = np.column_stack([flat, np.zeros(len(flat))]) - origin
        nearest, _ = self.first_hit(origin, towards)
        return (nearest > 1 - 1e-9).reshape(points.shape[:-1])

    def in_front(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """(...) bool: nothing stands between the camera's foot and ground points (..., 2), however low."""
        flat = points.reshape(-1, 2)
        towards = np.column_stack([flat - origin[:2], np.zeros(len(flat))])
        crawling = np.array([origin[0], origin[1], 1e-6])
        nearest, _ = self.first_hit(crawling, towards)
        return (nearest > 1 - 1e-9).reshape(points.shape[:-1])


def lens_rays(width: int, height: int, K: np.ndarray, D: Sequence[float] = (), *, fisheye: bool = False) -> np.ndarray:
    """(H, W, 3) directions through the pixel centres, by OpenCV; NaN where its own projection does not lead back."""
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    if not fisheye and not len(D):
        normal = ((pixels[:, 0] - [K[0, 2], K[1, 2]]) / [K[0, 0], K[1, 1]]).reshape(-1, 2)
        return np.column_stack([normal, np.ones(len(normal))]).reshape(height, width, 3)
    coefficients = np.array(D, np.float64)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-12)
    if fisheye:
        normal = cv2.fisheye.undistortPoints(pixels, K, coefficients, criteria=criteria)
        again, _ = cv2.fisheye.distortPoints(normal, K, coefficients), None
    else:
        normal = cv2.undistortPoints(pixels, K, coefficients, criteria=criteria)
        points = np.concatenate([normal, np.ones_like(normal[..., :1])], axis=-1)
        again, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, coefficients)
    directions = np.column_stack([normal[:, 0], np.ones(len(normal))])
    wrong = np.linalg.norm(np.asarray(again).reshape(-1, 2) - pixels[:, 0], axis=-1) > 1e-3
    directions[wrong | ~np.isfinite(directions).all(axis=1)] = np.nan
    return directions.reshape(height, width, 3)


def optical_pose(
    x: float = 0.0,
    y: float = 0.0,
    z: float = 1.5,
    *,
    pitch_deg: float = 0.0,
    yaw_deg: float = 0.0,
    roll_deg: float = 0.0,
) -> np.ndarray:
    """T_vehicle_camera of a camera that looks along +x; pitch down, yaw to the left, roll clockwise are positive."""
    pitch, yaw, roll = np.radians([pitch_deg, yaw_deg, roll_deg])
    axes = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # columns: right, down, forward
    turn_yaw = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    turn_pitch = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    turn_roll = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    pose = np.eye(4)
    pose[:3, :3] = turn_yaw @ turn_pitch @ turn_roll @ axes
    pose[:3, 3] = x, y, z
    return pose


def paint_lanes(
    scene: Scene, directions: np.ndarray, pose: np.ndarray, offsets: Sequence[float], *, dashed: Sequence[float] = ()
) -> np.ndarray:
    """(H, W, 3) uint8 RGB picture of the scene's ground with painted lines, brightness by the share of each pixel.

    Args:
        scene: its bend gives the course of the lines.
        directions: (2 H, 2 W, 3) rays at twice the resolution.
        pose: T_vehicle_camera.
        offsets: where solid lines of 0.15 m run, metres to the left of the road's middle.
        dashed: the same for lines with 3 m of paint in every 12 m.
    """
    origin = pose[:3, 3]
    rays = directions.reshape(-1, 3) @ pose[:3, :3].T
    shade = np.full(len(rays), 190.0)
    down = np.flatnonzero(rays[:, 2] < -1e-3)
    ground = origin[:2] - origin[2] / rays[down, 2:] * rays[down, :2]
    if scene.bend_radius == 0:
        along, left = ground[:, 0], ground[:, 1] - scene.middle_y
    else:
        offset = ground - [0.0, scene.middle_y + scene.bend_radius]
        left = scene.bend_radius - np.sign(scene.bend_radius) * np.linalg.norm(offset, axis=1)
        along = abs(scene.bend_radius) * np.arctan2(offset[:, 0], np.abs(offset[:, 1]))
    grain = np.random.default_rng(7).normal(0, 3, len(down))  # asphalt is never even
    paint = np.zeros(len(down), bool)
    for place in offsets:
        paint |= np.abs(left - place) < 0.075
    for place in dashed:
        paint |= (np.abs(left - place) < 0.075) & (along % 12 < 3)
    shade[down] = np.where(paint, 220, 80) + grain
    picture = np.clip(shade, 0, 255).astype(np.uint8).reshape(directions.shape[:2])
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, axis=2)


def fine_rays(width: int, height: int, K: np.ndarray, D: Sequence[float] = ()) -> np.ndarray:
    """(2 H, 2 W, 3) rays a quarter of a pixel to either side of the pixel centres."""
    doubled = K.copy()
    doubled[:2] *= 2
    doubled[:2, 2] += 0.5
    return lens_rays(2 * width, 2 * height, doubled, D)
