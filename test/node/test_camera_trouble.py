"""Trouble of the camera itself, told from its pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mfuser_ros.node.camera_trouble import LOOK_PERIOD_NS, CameraWatch, sampled_rows, sharpness, trouble_of

S = 1_000_000_000
PICTURES = sorted((Path(__file__).resolve().parents[1] / "data" / "pictures").glob("*.jpg"))


def real(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def found(picture: np.ndarray) -> str | None:
    return trouble_of(sampled_rows(picture), unchanged=False)


def half(picture: np.ndarray, part: str) -> np.ndarray:
    covered, (height, width) = picture.copy(), picture.shape[:2]
    rows = {"upper": slice(0, height // 2), "lower": slice(height // 2, None)}.get(part, slice(None))
    columns = {"left": slice(0, width // 2), "right": slice(width // 2, None)}.get(part, slice(None))
    covered[rows, columns] = 12
    return covered


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_real_picture_is_told_from_each_trouble(path):
    picture = real(path)

    assert found(picture) is None
    assert found(picture // 32) == "black"
    assert found(np.clip(picture.astype(int) * 4 + 60, 0, 255).astype(np.uint8)) == "overexposed"
    assert found(cv2.GaussianBlur(picture, (0, 0), picture.shape[1] / 300)) == "blurred"
    for part in ("lower", "left", "right"):
        assert found(half(picture, part)) == "covered", part
    is_bright = picture[picture.shape[0] // 2 :, :, 1].mean() > 60
    assert found(half(picture, "upper")) == ("covered" if is_bright else None)


def test_there_are_real_pictures():
    assert len(PICTURES) >= 3


def test_night_sky_covers_nothing():
    night = real(PICTURES[0]) // 4
    night[: night.shape[0] // 2] = 3

    assert found(night) is None


def test_plain_grey_is_no_trouble_that_can_be_named():
    assert found(np.full((480, 640, 3), 127, np.uint8)) is None


def test_sharpness_is_known_for_a_ramp_and_for_noise():
    ramp = np.tile(np.arange(128, dtype=np.uint8), (10, 1))
    noise = np.random.default_rng(0).integers(0, 256, (96, 640), np.uint8)

    assert sharpness(ramp) == pytest.approx(1 / 8)
    assert sharpness(noise) == pytest.approx(1, abs=0.02)
    assert sharpness(np.full((10, 100), 9, np.uint8)) == np.inf


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 2000), (2000, 3)])
def test_any_size_of_picture_can_be_looked_at(shape):
    assert found(np.zeros((*shape, 3), np.uint8)) == "black"
    found(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))


def watch(pictures, *, hold_s: float = 2.0, every_ns: int = LOOK_PERIOD_NS) -> list[str | None]:
    """What is told after each picture."""
    watched = CameraWatch()
    return [watched.look(picture, index * every_ns, hold_s=hold_s) for index, picture in enumerate(pictures)]


def test_trouble_is_told_once_it_has_lasted():
    sharp, black = real(PICTURES[0]), np.zeros((720, 1280, 3), np.uint8)

    told = watch([black] * 12 + [sharp])  # 0 s to 2.2 s in steps of 0.2 s

    assert told == [None] * 10 + ["black"] * 2 + [None]


def test_pictures_that_do_not_change_are_frozen_and_one_changed_row_ends_it():
    still = real(PICTURES[0])
    moved = np.roll(still, 1, axis=1)

    told = watch([still] * 13 + [moved])

    assert told[-3:] == ["frozen", "frozen", None]
    assert told[:10] == [None] * 10


def test_few_pictures_are_not_enough():
    black = np.zeros((48, 64, 3), np.uint8)

    assert watch([black] * 6, every_ns=10 * S) == [None] * 4 + ["black"] * 2


def test_camera_that_works_again_must_be_in_trouble_anew():
    sharp, black = real(PICTURES[0]), np.zeros((720, 1280, 3), np.uint8)

    told = watch([black] * 8 + [sharp] + [black] * 8)

    assert set(told) == {None}
