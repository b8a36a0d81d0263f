"""Where a crop lies in a picture that is read from disk: drawn in the worker, by looking at the labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfuser_ros.training.config import CropConfig
from mfuser_ros.vocabulary import UNKNOWN

Size = tuple[int, int]  # height, width
PLACES = 10  # drawn anew until a crop shows enough variety
LARGEST_SHARE = 0.75  # of one class in a crop that does


@dataclass(frozen=True)
class Crop:
    """Place and scale of one crop."""

    centre: np.ndarray  # (2,) y and x of its middle, in pixels of the picture
    factor: np.ndarray  # (2,) crop pixels for a pixel of the picture
    angle: float  # radians
    mirrored: bool


def draw_wide(rng: np.random.Generator, label: np.ndarray, config: CropConfig, nominal: Size | None) -> Crop:
    """A crop of any place and direction, as `Geometry.draw` makes them on the device.

    Args:
        rng: numbers.
        label: (H, W) uint8 of the whole picture, 255 unlabelled.
        config: size, scale, aspect and rotation.
        nominal: height and width that a scale of 1 brings the picture to; None: its own.
    """
    base = np.array(nominal or label.shape, float)
    scale = math.exp(rng.uniform(*np.log(config.scale)))
    stretch = math.exp(rng.uniform(-1, 1) * math.log1p(config.aspect) / 2)
    target = base * scale * np.array([1 / stretch, stretch])
    factor = target / np.array(label.shape)
    half = np.array(config.size) / 2
    centre = rng.uniform(np.minimum(half, target - half), np.maximum(half, target - half)) / factor
    return Crop(centre, factor, float(rng.normal(0, math.radians(config.rotation_deg))), bool(rng.random() < 0.5))


def draw_published(rng: np.random.Generator, label: np.ndarray, config: CropConfig, nominal: Size | None) -> Crop:
    """A crop as published: scale uniform, place in whole pixels, drawn anew while one class fills too much of it.

    Arguments as for `draw_wide`; a picture smaller than the crop lies in its upper left corner.

    Source: spec of MFuser section 6.5.
    """
    whole = np.array(label.shape)
    box = np.floor(np.array(nominal or label.shape) * rng.uniform(*config.scale))
    target = np.floor(whole * (box / whole).min() + 0.5)  # the largest picture of its aspect within the box
    factor = target / whole
    free = np.maximum(target - config.size, 0).astype(int)

    def place() -> Crop:
        corner = rng.integers(0, free + 1)
        return Crop((corner + np.array(config.size) / 2) / factor, factor, 0.0, mirrored=False)

    crop = place()
    for _ in range(PLACES):
        ids = nearest_ids(label, crop, config.size)
        counts = np.bincount(ids[ids != UNKNOWN], minlength=1)
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < LARGEST_SHARE:
            break
        crop = place()
    return Crop(crop.centre, factor, 0.0, mirrored=bool(rng.random() < 0.5))


def nearest_ids(label: np.ndarray, crop: Crop, size: Size) -> np.ndarray:
    """(h, w) labels of an upright crop before it is mirrored, 255 outside the picture; rotation is left out."""
    places = [
        np.floor(crop.centre[axis] + (np.arange(size[axis]) + 0.5 - size[axis] / 2) / crop.factor[axis]).astype(int)
        for axis in (0, 1)
    ]
    within = [(place >= 0) & (place < label.shape[axis]) for axis, place in enumerate(places)]
    ids = np.full(size, UNKNOWN, np.uint8)
    ids[np.ix_(*within)] = label[np.ix_(places[0][within[0]], places[1][within[1]])]
    return ids
