"""Worse weather for a recording: the same frames, seen through rain, fog, glare or dusk, the same way every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

Weather = Literal["rain", "fog", "sun", "dark"]


def degrade(picture: np.ndarray, weather: Weather, number: int) -> np.ndarray:
    """A picture as it would look in other weather.

    Plain photometry, for the question whether a model notices that it sees worse; no stand-in for recordings in rain.

    Args:
        picture: uint8 RGB (H, W, 3).
        weather: rain: streaks, blur, a grey veil; fog: a veil that thickens upwards; sun: brighter, warmer, more
            contrast, as good a view as before; dark: a fifth of the light, with the noise of a camera.
        number: of the frame; places streaks and noise.

    Returns:
        uint8 RGB (H, W, 3).
    """
    draw = np.random.default_rng(number)
    changed = _KINDS[weather](picture.astype(np.float32), draw)
    return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)


def _rain(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    drops = (draw.random((height, width), np.float32) > 0.998).astype(np.float32)
    length = max(3, height // 24)
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (length // 3, 0), (length - length // 3, length - 1), 1.0, 1)  # a slant, as at some speed
    streaks = cv2.filter2D(drops, -1, kernel)[..., None]
    blurred = cv2.GaussianBlur(picture, (0, 0), max(0.8, width / 400))
    veiled = 0.55 * blurred + 0.45 * 150
    return np.asarray(veiled + np.clip(streaks, 0, 1) * (235 - veiled) * 0.7)


def _fog(picture: np.ndarray, _draw: np.random.Generator) -> np.ndarray:
    rows = np.linspace(0, 1, picture.shape[0], dtype=np.float32)[:, None, None]
    clear = 0.2 + 0.6 * rows  # what is low in the picture is near
    return np.asarray(clear * picture + (1 - clear) * 205)


def _sun(picture: np.ndarray, _draw: np.random.Generator) -> np.ndarray:
    return np.asarray((1.12 * (picture - 128) + 138) * np.array([1.04, 1.0, 0.95], np.float32))


def _dark(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    light: np.ndarray = 0.2 * picture
    return np.asarray(light + draw.standard_normal(picture.shape, np.float32) * np.sqrt(light + 4))


_KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "rain": _rain,
    "fog": _fog,
    "sun": _sun,
    "dark": _dark,
}
