"""Boundary IoU by hand, and against a plain implementation mask by mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mfuser_ros.evaluation.boundary import Boundary, near_outline


def _plain(label: np.ndarray, guess: np.ndarray, class_id: int, distance: int) -> tuple[int, int]:
    """Intersection and union of the bands of one class, with erosions one after the other as the source has them."""
    bands = []
    for ids in (label, guess):
        mask = (ids == class_id).astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
        bands.append((mask - eroded[1:-1, 1:-1]).astype(bool))
    return int((bands[0] & bands[1]).sum()), int((bands[0] | bands[1]).sum())


def test_bands_by_hand() -> None:
    # 30 x 40: the diagonal is 50, so d = 1; a block of 10 x 10 that is seen one pixel too far right
    label = np.zeros((30, 40), np.uint8)
    label[10:20, 10:20] = 1
    guess = np.zeros((30, 40), np.uint8)
    guess[10:20, 11:21] = 1
    boundary = Boundary.empty(2)
    boundary.add(label, guess)
    # both rings have 36 pixels; they share rows 10 and 19 in columns 11 to 19, and nothing else
    assert boundary.counts[:, 1].tolist() == [18, 54]
    assert boundary.iou[1] == pytest.approx(1 / 3)


def test_band_is_two_percent_of_the_diagonal_wide() -> None:
    label = np.zeros((300, 400), np.uint8)  # diagonal 500: d = 10
    boundary = Boundary.empty(1)
    boundary.add(label, label)
    assert boundary.counts[:, 0].tolist() == [300 * 400 - 280 * 380] * 2


@pytest.mark.parametrize("shape", [(30, 40), (64, 100), (120, 90)])
def test_counts_equal_those_of_each_mask_alone(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (6, 8)).astype(np.uint8)
    label = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_NEAREST)
    guess = np.roll(label, (2, -3), (0, 1))
    guess[5:9, 5:30] = 255
    label[-6:, :] = 255
    boundary = Boundary.empty(4)
    boundary.add(label, guess)

    distance = max(1, round(0.02 * np.hypot(*shape)))
    seen = np.where(label == 255, 255, guess)
    for class_id in range(4):
        assert tuple(boundary.counts[:, class_id]) == _plain(label, seen, class_id, distance)


def test_right_prediction_has_an_iou_of_one_however_void_cuts_the_label() -> None:
    guess = np.zeros((40, 60), np.uint8)
    guess[:, 30:] = 1
    label = guess.copy()
    label[10:25, 20:50] = 255
    boundary = Boundary.empty(3)
    boundary.add(label, guess)
    np.testing.assert_array_equal(boundary.iou, [1, 1, np.nan])
    assert boundary.mean == 1


def test_counts_of_pictures_add_up() -> None:
    rng = np.random.default_rng(1)
    pairs = [rng.integers(0, 3, (2, 20, 30)).astype(np.uint8) for _ in range(3)]
    whole = Boundary.empty(3)
    parts = []
    for label, guess in pairs:
        whole.add(label, guess)
        part = Boundary.empty(3)
        part.add(label, guess)
        parts.append(part.counts)
    np.testing.assert_array_equal(whole.counts, sum(parts))


def test_nothing_counted_has_no_mean() -> None:
    assert Boundary.empty(2).mean is None


def test_pixel_beside_the_border_is_near_an_outline() -> None:
    near = near_outline(np.full((5, 7), 3, np.uint8), 1)
    assert near.sum() == 5 * 7 - 3 * 5
    assert not near[1:-1, 1:-1].any()
