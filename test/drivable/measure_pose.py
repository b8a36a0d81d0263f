"""Measures how well pitch and height come out of rendered roads: `make witness`.

Writes docs/benchmarks/calibrate.json, from which `make docs` makes the table of docs/drivable.md.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from road_scene import CAR, Box, Scene, fine_rays, lens_rays, optical_pose, paint_lanes
from witness_cameras import BARREL

from mfuser_ros import vocabulary
from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.drift import PoseEstimate, RoadWatch

RESULT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "calibrate.json"
WIDTH, HEIGHT, POSES, FRAMES = 640, 360, 12, 6
K = np.array([[533.0, 0, 317.8], [0, 536, 181.6], [0, 0, 1]])


class Condition(NamedTuple):
    """What makes it harder. Each pose is driven for six frames, 4 m apart, in a lane of 3.5 m."""

    name: str
    paint: bool = True
    bend: float = 0.0  # radius, metres
    nod_deg: float = 0.0  # standard deviation of the pitch from frame to frame
    noise: int = 0  # labels come from up to so many pixels away
    grain: float = 0.0  # grey levels of noise in the picture
    traffic: bool = False
    roll_deg: float = 0.0  # that the stated pose does not know of
    lane_width: float = 3.5  # that the road is said to have


CONDITIONS = (
    Condition("lane lines"),
    Condition("lane lines, bend of 300 m", bend=300.0),
    Condition("lane lines, traffic and noise", traffic=True, noise=2, grain=6.0),
    Condition("lane lines, nodding by 0.3 degrees", nod_deg=0.3),
    Condition("lane lines, 1 degree of roll that is not known", roll_deg=1.0),
    Condition("lane lines 5 % wider than said", lane_width=3.5 / 1.05),
    Condition("road edges only", paint=False),
    Condition("road edges only, labels moved by up to 2 pixels", paint=False, noise=2),
    Condition("road edges only, bend of 300 m", paint=False, bend=300.0),
)


def drive(condition: Condition, seed: int) -> tuple[float, float, PoseEstimate | None]:
    """True pitch in degrees and height, and what the road says of them."""
    random = np.random.default_rng(seed)
    pitch, height, yaw = random.uniform(-2, 8), random.uniform(1.1, 2.6), random.uniform(-3, 3)
    things = (
        (Box(22, -3.6, 4.5, 1.8, 1.5), Box(35, 0, 4.5, 1.8, 1.5), Box(30, 3.6, 9, 2.4, 3)) if condition.traffic else ()
    )
    scene = Scene(
        tuple(things),
        half_width=random.uniform(5.0, 7.0),
        bend_radius=condition.bend,
        sidewalk_width=3.0,
        kerb_height=0.12,
    )
    camera = CameraModel(WIDTH, HEIGHT, K, BARREL)
    stated = optical_pose(1.5, 0.0, 1.5, pitch_deg=3.0, yaw_deg=yaw)
    watch = RoadWatch(
        camera, stated, vocabulary.load(), lane_width_m=condition.lane_width, road_width_m=2 * scene.half_width
    )
    rays, fine = lens_rays(WIDTH, HEIGHT, K, BARREL), fine_rays(WIDTH, HEIGHT, K, BARREL)
    for step in range(FRAMES):
        course = 4.0 * step / condition.bend if condition.bend else 0.0
        x, y = (condition.bend * np.sin(course), condition.bend * (1 - np.cos(course))) if course else (4.0 * step, 0.0)
        pose = optical_pose(
            x,
            y,
            height,
            pitch_deg=pitch + condition.nod_deg * random.normal(),
            yaw_deg=yaw + np.degrees(course),
            roll_deg=condition.roll_deg,
        )
        mask = scene.render(rays, pose)
        picture = None
        if condition.paint:
            picture = paint_lanes(scene, fine, pose, (1.75, 5.25), dashed=(-1.75,))
            picture[mask == CAR] = 60
            grain = random.normal(0, condition.grain, picture.shape) if condition.grain else 0
            picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
        watch.look(_noisy(mask, condition.noise, random), picture)
    return pitch, height, watch.estimate()


def _noisy(mask: np.ndarray, reach: int, random: np.random.Generator) -> np.ndarray:
    rows = np.arange(HEIGHT)[:, None] + random.integers(-reach, reach + 1, mask.shape)
    columns = np.arange(WIDTH) + random.integers(-reach, reach + 1, mask.shape)
    return mask[np.clip(rows, 0, HEIGHT - 1), np.clip(columns, 0, WIDTH - 1)]


def summary(condition: Condition, results: list[tuple[float, float, PoseEstimate | None]]) -> dict[str, object]:
    pitch = np.array([abs(np.degrees(found.pitch_rad) - true) for true, _, found in results if found is not None])
    pairs = [(true, found.height_m) for _, true, found in results if found is not None]
    height = np.array([abs(found / true - 1) for true, found in pairs if found is not None])

    def numbers(values: np.ndarray, digits: int) -> dict[str, float]:
        return {
            "median": round(float(np.median(values)), digits),
            "p95": round(float(np.percentile(values, 95)), digits),
            "largest": round(float(values.max()), digits),
        }

    row = {
        "name": condition.name,
        "poses": len(results),
        "told": len(pitch),
        "pitch_error_deg": numbers(pitch, 3),
        "height_error_percent": numbers(100 * height, 2),
    }
    print(json.dumps(row), flush=True)
    return row


def measure(jobs: int) -> dict[str, object]:
    with ProcessPoolExecutor(jobs) as pool:
        started = [
            (condition, [pool.submit(drive, condition, seed) for seed in range(POSES)]) for condition in CONDITIONS
        ]
        rows = [summary(condition, [future.result() for future in futures]) for condition, futures in started]
    return {"version": 1, "command": "make witness", "frames": FRAMES, "size": f"{WIDTH}x{HEIGHT}", "poses": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file to write")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(measure(arguments.jobs), indent=1) + "\n", encoding="utf-8")
