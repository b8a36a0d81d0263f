"""Measures the drivable area on rendered scenes, with and without the errors that a vehicle has: `make witness`.

Writes docs/benchmarks/drivable.json, from which `make docs` makes the table of docs/drivable.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
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
from witness_cameras import BARREL, WITNESSES, WitnessCamera

from mfuser_ros import vocabulary
from mfuser_ros.drivable import DrivableArea, GridSpec, View

RESULT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "drivable.json"
RANDOM_SCENES = 60
WORDS = vocabulary.load()


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


class Error(NamedTuple):
    """What is wrong with a view."""

    name: str
    lower_deg: float = 0.0  # the camera looks so much lower than its pose says
    lower_m: float = 0.0  # the camera is so much lower than its pose says
    moved: int = 0  # each pixel takes the label of one up to so many pixels away
    unsure: bool = False  # with low confidence where labels differ
    random_scenes: bool = False

    def put_into(self, view: View, random: np.random.Generator) -> View:
        pose = view.T_vehicle_camera.copy()
        angle = np.radians(self.lower_deg)  # about the optical x axis, which points to the right: looks up by this
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        pose[:3, :3] = pose[:3, :3] @ turn
        pose[2, 3] += self.lower_m
        mask, confidence, reach = view.mask, view.confidence.copy(), self.moved
        if reach:
            height, width = mask.shape
            rows = np.arange(height)[:, None] + random.integers(-reach, reach + 1, mask.shape)
            columns = np.arange(width) + random.integers(-reach, reach + 1, mask.shape)
            mask = mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
        if self.unsure:
            kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
            confidence[cv2.dilate(view.mask, kernel) != cv2.erode(view.mask, kernel)] = 100
        return View(mask, confidence, view.camera, pose)


ERRORS = (
    Error("none"),
    Error("none, random scenes and cameras", random_scenes=True),
    Error("camera looks 1 degree lower than its pose says", lower_deg=1.0),
    Error("camera looks 1 degree higher than its pose says", lower_deg=-1.0),
    Error("camera is 0.1 m lower than its pose says", lower_m=0.1),
    Error("camera is 0.1 m higher than its pose says", lower_m=-0.1),
    Error("labels moved by up to 2 pixels at random", moved=2),
    Error("the same, with low confidence along borders", moved=2, unsure=True),
)


def look(error: Error, number: int) -> Verdict:
    case = Case(*random_scene(number)) if error.random_scenes else fixed_cases()[number]
    area = DrivableArea(GridSpec(), WORDS)
    view = error.put_into(case.view(), np.random.default_rng(number))
    return judge(area.update([view]).occupancy, area.spec, case.witness())


def rig(missing: str, decay_s: float) -> Verdict:
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
    return judge(result.occupancy, RIG_SPEC, *(Case(STREET, camera).witness() for camera in RIG.values()))


def summary(name: str, found: Sequence[Verdict]) -> dict[str, object]:
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


def update_ms(decay_s: float) -> dict[str, float]:
    """CPU time of updates with one 1280x720 mask, on a vehicle that drives round a bend."""
    scene, camera = SCENES["bend"], WitnessCamera(1280, 720, 1160.0, BARREL, "plumb_bob", WITNESSES["plumb_bob"].pose)
    mask = scene.render(camera.rays, camera.pose)
    view = View(mask, np.full_like(mask, 255), camera.camera, camera.pose)
    area = DrivableArea(GridSpec(), WORDS, decay_s=decay_s)
    times = []
    for step in range(151):
        vehicle = np.eye(4)
        vehicle[:2, :2] = [[np.cos(step / 50), -np.sin(step / 50)], [np.sin(step / 50), np.cos(step / 50)]]
        vehicle[:2, 3] = 25 * np.sin(step / 50), 25 * (1 - np.cos(step / 50))
        start = time.process_time()
        area.update([view], stamp_s=0.05 * step, T_odom_vehicle=vehicle)
        times.append(1e3 * (time.process_time() - start))
    return {f"p{share}": round(float(np.percentile(times[1:], share)), 2) for share in (50, 95)}


def measure(jobs: int) -> dict[str, object]:
    rigs = (
        ("four cameras", "", 0.0),
        ("one picture of four missing", "left", 0.0),
        ("the same, decay 1 s", "left", 1.0),
    )
    with ProcessPoolExecutor(jobs) as pool:
        started = [
            (error.name, [pool.submit(look, error, n) for n in range(RANDOM_SCENES if error.random_scenes else 8)])
            for error in ERRORS
        ]
        started += [(name, [pool.submit(rig, missing, decay_s)]) for name, missing, decay_s in rigs]
        rows = [summary(name, [future.result() for future in futures]) for name, futures in started]
    cv2.setNumThreads(1)
    cost = [{"decay_s": decay_s, "cpu_ms": update_ms(decay_s)} for decay_s in (0.0, 1.0)]
    return {"version": 1, "command": "make witness", "within_m": 20.0, "witness": rows, "update": cost}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file to write")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(measure(arguments.jobs), indent=1) + "\n", encoding="utf-8")
