"""Measures a drivable area against the geometry of a scene."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from road_scene import Scene

from mfuser_ros.drivable import CameraModel, GridSpec


@dataclass(frozen=True)
class Verdict:
    """How a result compares with the truth."""

    iou: float  # of free space within the range, outside the border band
    wrong_free: int  # cells called free that are under a thing, hidden, or off the road by more than a cell
    feet_share: float  # of the visible feet, those in a cell marked occupied
    wrong_occupied: int  # occupied cells further than the band from every thing
    judged: int  # cells that count for the IoU


class Witness:
    """Sees the ground with OpenCV's own projection."""

    def __init__(
        self,
        scene: Scene,
        camera: CameraModel,
        pose: np.ndarray,
        project: Callable[[np.ndarray], np.ndarray],
        rays: np.ndarray,
    ) -> None:
        self.scene, self.camera, self.pose, self.project = scene, camera, pose, project
        self.rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        self.origin = pose[:3, 3]

    def pixels(self, points: np.ndarray) -> np.ndarray:
        flat = points.reshape(-1, 2)
        solid = np.column_stack([flat, np.zeros(len(flat))]) - self.origin
        return self.project(solid @ self.pose[:3, :3]).reshape(points.shape)

    def pictured(self, points: np.ndarray) -> np.ndarray:
        """Within the outermost pixel centres, and truly seen there: a lens polynomial may fold back."""
        uv = self.pixels(points)
        with np.errstate(invalid="ignore"):
            inside = ((uv >= 0) & (uv <= [self.camera.width - 1, self.camera.height - 1])).all(axis=-1)
        column, row = np.moveaxis(np.rint(np.where(inside[..., None], uv, 0)).astype(int), -1, 0)
        towards = np.concatenate([points, np.zeros((*points.shape[:-1], 1))], axis=-1) - self.origin
        towards = towards @ self.pose[:3, :3] / np.linalg.norm(towards, axis=-1, keepdims=True)
        return inside & (np.linalg.norm(towards - self.rays[row, column], axis=-1) < 0.02)

    def pixel_length(self, points: np.ndarray) -> np.ndarray:
        offset = points - self.origin[:2]
        outward = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-9)
        shift = self.pixels(points + 0.001 * outward) - self.pixels(points - 0.001 * outward)
        with np.errstate(divide="ignore"):
            return 0.002 / np.linalg.norm(shift, axis=-1)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(...) metres from the camera's foot."""
        return np.linalg.norm(points - self.origin[:2], axis=-1)

    def band(self, points: np.ndarray, resolution: float) -> np.ndarray:
        """(...) metres: one cell and 1.5 pixels."""
        length = self.pixel_length(points)
        return resolution + 1.5 * np.where(np.isfinite(length), length, 0.0)

    def sees_foot(self, foot: np.ndarray) -> np.ndarray:
        """(N,) bool: nothing hides this point of a thing's outline, and the picture shows it finely enough."""
        outside = foot + 0.002 * (self.origin[:2] - foot) / np.linalg.norm(
            self.origin[:2] - foot, axis=1, keepdims=True
        )
        return (
            self.scene.visible(outside, self.origin)
            & self.scene.in_front(outside, self.origin)
            & self.pictured(foot)
            & (self.pixel_length(foot) <= 1.0)
        )

    def free(self, points: np.ndarray) -> np.ndarray:
        """Free by the words of the contract, connectivity aside (the scenes have no islands)."""
        scene = self.scene
        return (
            (scene.off_road(points) <= 0)
            & ~scene.under_thing(points)
            & scene.visible(points, self.origin)
            & scene.in_front(points, self.origin)
            & self.pictured(points)
            & (self.pixel_length(points) <= 1.0)
        )


def judge(occupancy: np.ndarray, spec: GridSpec, *witnesses: Witness, within: float = 20.0) -> Verdict:
    """Compare an occupancy grid with the scene, as one or several cameras see it."""
    scene, resolution = witnesses[0].scene, spec.resolution
    x = spec.x_min + resolution * (np.arange(spec.cols) + 0.5)
    y = spec.y_min + resolution * (np.arange(spec.rows) + 0.5)
    centres = np.stack(np.meshgrid(x, y), axis=-1)
    claimed = occupancy == 0
    near = np.zeros_like(claimed)
    for witness in witnesses:  # elsewhere all say: not free
        near |= witness.distance(centres) <= within
    near &= claimed | np.logical_or.reduce([witness.pictured(centres) for witness in witnesses])
    spots = centres[near]
    truth, steady = np.zeros(len(spots), bool), np.ones(len(spots), bool)
    for witness in witnesses:
        free, same = _steady(witness, spots, resolution)
        truth |= free
        steady &= same
    agreed = steady & claimed[near] & truth
    union = (steady & (claimed[near] | truth)).sum()
    iou = float(agreed.sum() / union) if union else np.nan

    ticks = np.linspace(-0.5, 0.5, 5) * resolution
    parts = centres[claimed][:, None] + np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(1, 25, 2)
    seen = np.logical_or.reduce([scene.visible(parts, witness.origin).all(axis=1) for witness in witnesses])
    bad = scene.under_thing(parts).any(axis=1) | ~seen | (scene.off_road(centres[claimed]) > resolution)
    feet, marked = _feet(occupancy, spec, witnesses)
    occupied = centres[occupancy == 100]
    wrong_occupied = 0
    if len(occupied):
        nearest = np.min([np.full(len(occupied), np.inf), *(t.distance(occupied) for t in scene.things)], axis=0)
        band = np.max([witness.band(occupied, resolution) for witness in witnesses], axis=0)
        wrong_occupied = int((nearest > band).sum())
    return Verdict(iou, int(bad.sum()), marked / feet if feet else np.nan, wrong_occupied, int(steady.sum()))


def _steady(witness: Witness, spots: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """For (N, 2) spots: free to this witness, and so all over the border band."""
    offset = spots - witness.origin[:2]
    away = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-9)
    reach = witness.band(spots, resolution)[:, None]
    aside = np.stack([-away[:, 1], away[:, 0]], axis=-1) * resolution
    truth = witness.free(spots)
    steady = np.ones_like(truth)
    for sideways, along in itertools.product((-1, 0, 1), (-1.0, -0.5, 0.5, 1.0)):
        steady &= witness.free(spots + aside * sideways + away * reach * along) == truth
    for shift in itertools.product((-1, 0, 1), repeat=2):
        steady &= witness.free(spots + np.array(shift) * resolution) == truth
    return truth, steady


def _feet(occupancy: np.ndarray, spec: GridSpec, witnesses: Sequence[Witness]) -> tuple[int, int]:
    """Points every 5 cm round the things that a camera sees from outside, and how many lie in an occupied cell."""
    total = marked = 0
    for thing in witnesses[0].scene.things:
        foot = thing.outline(0.05)
        seen = np.logical_or.reduce([witness.sees_foot(foot) for witness in witnesses])
        column = np.floor((foot[:, 0] - spec.x_min) / spec.resolution).astype(int)
        row = np.floor((foot[:, 1] - spec.y_min) / spec.resolution).astype(int)
        seen &= (column >= 0) & (column < spec.cols) & (row >= 0) & (row < spec.rows)
        total += int(seen.sum())
        marked += int((occupancy[row[seen], column[seen]] == 100).sum())
    return total, marked
