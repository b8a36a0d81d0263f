"""Random roads with vehicles, people, walls and posts, seen by random cameras; the seed says which."""

from __future__ import annotations

import numpy as np
from road_scene import BUILDING, POLE, Box, Post, Scene, optical_pose
from witness_cameras import BARREL, FISHEYE, RATIONAL, WitnessCamera


def random_scene(seed: int) -> tuple[Scene, WitnessCamera]:
    """A road of 6 m to 14 m, straight or bent, with up to ten things in view, and a camera above it."""
    random = np.random.default_rng(seed)
    things: list[Box | Post] = []
    for _ in range(random.integers(2, 6)):
        x, y, yaw = random.uniform(8, 28), random.uniform(-6, 6), random.uniform(-np.pi, np.pi)
        things.append(Box(x, y, random.uniform(3.5, 6), random.uniform(1.6, 2.2), random.uniform(1.3, 3), yaw=yaw))
    for _ in range(random.integers(1, 5)):
        x, y = random.uniform(6, 20), random.uniform(-6, 6)
        things.append(Post(x, y, random.uniform(0.2, 0.35), random.uniform(1.5, 1.9)))
    if random.random() < 0.5:
        things.append(Post(random.uniform(8, 20), random.uniform(4, 7), 0.1, 4.0, POLE))
        things.append(Box(20, random.uniform(10, 13), 30, 6, 8, BUILDING))
    things = [thing for thing in things if float(thing.distance(np.zeros(2))) > 4.0]
    bend = float(random.choice([0.0, 40.0, -40.0, 80.0]))
    scene = Scene(
        tuple(things),
        half_width=random.uniform(3, 7),
        middle_y=random.uniform(-1.5, 1.5),
        bend_radius=bend,
        kerb_height=float(random.choice([0.0, 0.12])),
    )
    lens = str(random.choice(["pinhole", "plumb_bob", "rational_polynomial", "equidistant"]))
    width, height = (640, 360) if random.random() < 0.5 else (960, 540)
    focal = width * random.uniform(0.34, 0.4) if lens == "equidistant" else width * random.uniform(0.6, 1.0)
    D = {"pinhole": (), "plumb_bob": BARREL, "rational_polynomial": RATIONAL, "equidistant": FISHEYE}[lens]
    pose = optical_pose(
        random.uniform(0, 2),
        random.uniform(-0.5, 0.5),
        random.uniform(1.1, 2.4),
        pitch_deg=random.uniform(0, 12),
        yaw_deg=random.uniform(-8, 8),
        roll_deg=random.uniform(-2, 2),
    )
    return scene, WitnessCamera(width, height, focal, D, "plumb_bob" if lens == "pinhole" else lens, pose)
