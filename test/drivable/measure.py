"""Measures the drivable area on rendered scenes, with and without the errors that a vehicle has: `make witness`.

Writes docs/benchmarks/drivable.json, from which `make docs` makes the table of docs/drivable.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from judge import Verdict, Witness, judge
from random_scenes import random_scene
from road_scene import Scene
from test_fused_cameras import RIG, STREET
from test_fused_cameras import SPEC as RIG_SPEC
from test_witness_scenes import SCENES
from witness_cameras import WITNESSES, WitnessCamera

from mfuser_ros import vocabulary
from mfuser_ros.drivable import DrivableArea, GridSpec, View

RESULT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "drivable.json"
RANDOM_SCENES = 120
WORDS = vocabulary.load()

Bend = Callable[[View, np.random.Generator], View]
"""Puts an error into a view."""


class Case(NamedTuple):
    """A scene and a camera that looks at it."""

    scene: Scene
    camera: WitnessCamera

    def view(self) -> View:
        mask = self.scene.render(self.camera.rays, self.camera.pose)
        return View(mask, np.full_like(mask, 255), self.camera.camera, self.camera.pose)

    def witness(self) -> Witness:
        camera = self.camera
        return Witness(self.scene, camera.camera, camera.pose, camera.project, camera.rays)


def fixed_cases() -> list[Case]:
    return [Case(SCENES[scene], camera) for camera in WITNESSES.values() for scene in ("traffic", "bend")]


def perfect(view: View, _: np.random.Generator) -> View:
    return view


def pitched(degrees: float) -> Bend:
    """The camera looks so much further down than its pose says."""

    def bend(view: View, _: np.random.Generator) -> View:
        pose = view.T_vehicle_camera.copy()
        angle = np.radians(degrees)  # about the optical x axis, which points to the right: looks up by this angle
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        pose[:3, :3] = pose[:3, :3] @ turn
        return View(view.mask, view.confidence, view.camera, pose)

    return bend


def raised(metres: float) -> Bend:
    """The camera is so much lower than its pose says."""

    def bend(view: View, _: np.random.Generator) -> View:
        pose = view.T_vehicle_camera.copy()
        pose[2, 3] += metres
        return View(view.mask, view.confidence, view.camera, pose)

    return bend


def noisy(reach: int, *, unsure: bool) -> Bend:
    """Each pixel takes the label of one up to `reach` pixels away; unsure: with low confidence where labels differ."""

    def bend(view: View, random: np.random.Generator) -> View:
        height, width = view.mask.shape
        rows = np.arange(height)[:, None] + random.integers(-reach, reach + 1, (height, width))
        columns = np.arange(width) + random.integers(-reach, reach + 1, (height, width))
        mask = view.mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
        confidence = view.confidence.copy()
        if unsure:
            kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
            confidence[cv2.dilate(view.mask, kernel) != cv2.erode(view.mask, kernel)] = 100
        return View(mask, confidence, view.camera, view.T_vehicle_camera)

    return bend


def look(cases: Iterable[Case], bend: Bend) -> Iterator[Verdict]:
    area = DrivableArea(GridSpec(), WORDS)
    for number, case in enumerate(cases):
        view = bend(case.view(), np.random.default_rng(number))
        yield judge(area.update([view]).occupancy, area.spec, case.witness())


def rig(missing: str, *, decay_s: float) -> Iterator[Verdict]:
    """Four cameras, driving at 10 m/s with 10 pictures a second; the last picture of one does not come."""
    area = DrivableArea(RIG_SPEC, WORDS, decay_s=decay_s)
    for step in range(-8, 1):
        vehicle = np.eye(4)
        vehicle[0, 3] = step
        names = [name for name in RIG if step < 0 or name != missing]
        views = []
        for name in names:
            camera = RIG[name]
            mask = STREET.render(camera.rays, vehicle @ camera.pose)
            views.append(View(mask, np.full_like(mask, 255), camera.camera, camera.pose))
        result = area.update(views, stamp_s=0.1 * step, T_odom_vehicle=vehicle)
    yield judge(result.occupancy, RIG_SPEC, *(Case(STREET, camera).witness() for camera in RIG.values()))


def summary(name: str, verdicts: Iterable[Verdict]) -> dict[str, object]:
    found = list(verdicts)
    iou, feet = np.array([v.iou for v in found]), np.array([v.feet_share for v in found])
    print(f"{name}: IoU {iou.mean():.3f}, lowest {iou.min():.3f}", flush=True)
    return {
        "name": name,
        "scenes": len(found),
        "iou_mean": round(float(iou.mean()), 4),
        "iou_lowest": round(float(iou.min()), 4),
        "wrong_free_mean": round(float(np.mean([v.wrong_free for v in found])), 2),
        "wrong_free_most": int(max(v.wrong_free for v in found)),
        "feet_mean": round(float(np.nanmean(feet)), 4),
        "feet_lowest": round(float(np.nanmin(feet)), 4),
        "feet_below_0.9": int((feet < 0.9).sum()),
        "wrong_occupied_most": int(max(v.wrong_occupied for v in found)),
    }


def measure() -> dict[str, object]:
    fixed = fixed_cases()
    chance = [Case(*random_scene(seed)) for seed in range(RANDOM_SCENES)]
    conditions = [
        summary("perfect", look(fixed, perfect)),
        summary("perfect, random scenes and cameras", look(chance, perfect)),
        summary("camera looks 1 degree lower than its pose says", look(fixed, pitched(1.0))),
        summary("camera looks 1 degree higher than its pose says", look(fixed, pitched(-1.0))),
        summary("camera 0.1 m lower than its pose says", look(fixed, raised(0.1))),
        summary("camera 0.1 m higher than its pose says", look(fixed, raised(-0.1))),
        summary("labels moved by up to 2 pixels at random", look(fixed, noisy(2, unsure=False))),
        summary("the same, with low confidence along borders", look(fixed, noisy(2, unsure=True))),
        summary("four cameras", rig("", decay_s=0.0)),
        summary("four cameras, one picture missing", rig("left", decay_s=0.0)),
        summary("the same, decay 1 s", rig("left", decay_s=1.0)),
    ]
    return {"version": 1, "command": "make witness", "within_m": 20.0, "witness": conditions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file to write")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
