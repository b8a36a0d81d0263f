"""Label flips are counted where a label changes along the flow, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mfuser_ros.evaluation.temporal import Flips, count_flips

SIZE = (120, 160)
ROAD, SIDEWALK, CAR, UNKNOWN = 0, 1, 13, 255


def _texture(seed: int = 0, size: tuple[int, int] = (200, 240)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX))


def _window(world: np.ndarray, column: int) -> np.ndarray:
    return np.ascontiguousarray(world[20 : 20 + SIZE[0], column : column + SIZE[1]])


def _drive(masks: list[np.ndarray], *, step: int = 0, interval_s: float = 0.1) -> Flips:
    """Flips of masks over a picture that moves `step` pixels to the left each time."""
    world = _texture()
    return count_flips((_window(world, 10 + step * i), mask, i * interval_s) for i, mask in enumerate(masks))


def _plain(label: int) -> np.ndarray:
    return np.full(SIZE, label, np.uint8)


def test_labels_that_move_with_the_picture_do_not_flip() -> None:
    labels = np.zeros((200, 240), np.uint8)
    labels[:, 100:] = CAR
    flips = _drive([_window(labels, 10 + 3 * i) for i in range(4)], step=3)
    assert (flips.pairs, flips.cuts) == (3, 0)
    assert flips.points > 0.8 * 3 * SIZE[0] * SIZE[1]
    assert flips.flips < 0.001 * flips.points


def test_labels_that_stay_while_the_picture_moves_flip_at_the_border() -> None:
    mask = _plain(ROAD)
    mask[:, 80:] = CAR
    flips = _drive([mask, mask], step=3)
    assert flips.flips == pytest.approx(3 * SIZE[0], rel=0.1)  # three columns of the scene become car
    assert flips.drivable == flips.flips
    assert flips.jumps == pytest.approx(2 * SIZE[0], rel=0.1)  # the first of them had a car beside it


def test_every_point_of_a_still_picture_that_changes_is_counted_once() -> None:
    changed = _plain(ROAD)
    changed[10:30, 40:80] = CAR
    changed[50:60, 40:80] = UNKNOWN
    changed[70:75, 40:80] = SIDEWALK
    flips = _drive([_plain(ROAD), changed], interval_s=0.25)
    assert flips.points == SIZE[0] * SIZE[1]
    assert flips.flips == flips.drivable == (20 + 10 + 5) * 40
    assert flips.unknown == 10 * 40
    assert flips.flips_per_s == pytest.approx(35 * 40 / (SIZE[0] * SIZE[1]) / 0.25)


def test_flicker_that_is_as_often_at_twice_the_rate_is_twice_as_bad() -> None:
    masks = [_plain(ROAD), _plain(CAR)] * 3
    assert _drive(masks, interval_s=0.1).flips_per_s == pytest.approx(10)
    assert _drive(masks, interval_s=0.05).flips_per_s == pytest.approx(20)


def test_change_between_two_things_that_stand_leaves_the_drivable_area_alone() -> None:
    assert _drive([_plain(CAR), _plain(14)]).drivable == 0


def test_cut_is_no_flip() -> None:
    flips = count_flips(
        [(_texture(0), np.zeros((200, 240), np.uint8), 0.0), (_texture(1), np.ones((200, 240), np.uint8), 0.1)]
    )
    assert (flips.pairs, flips.cuts, flips.points) == (0, 1, 0)
    assert flips.flips_per_s is None
    assert flips.summary()["flip_share"] is None


@pytest.mark.parametrize("second_s", [0.6, 0.0, -1.0])
def test_pictures_that_are_no_neighbours_in_time_are_not_compared(second_s: float) -> None:
    still = _texture()
    mask = np.zeros(still.shape[:2], np.uint8)
    flips = count_flips([(still, mask, 0.0), (still, mask + 1, second_s)])
    assert (flips.pairs, flips.cuts) == (0, 1)


def test_another_size_is_a_cut() -> None:
    small, large = _texture(size=(100, 120)), _texture()
    frames = [
        (picture, np.zeros(picture.shape[:2], np.uint8), 0.1 * i) for i, picture in enumerate([small, large, large])
    ]
    flips = count_flips(frames)
    assert (flips.pairs, flips.cuts) == (1, 1)


def test_what_comes_into_view_is_left_out() -> None:
    """A card that jumps over the background hides points and shows others: neither are flips."""
    world = _texture()
    card = _texture(7, (60, 60))
    frames = []
    for i in range(2):
        picture, mask = world.copy(), np.full(world.shape[:2], ROAD, np.uint8)
        picture[70:130, 80 + 12 * i : 140 + 12 * i] = card
        mask[70:130, 80 + 12 * i : 140 + 12 * i] = CAR
        frames.append((picture, mask, 0.1 * i))
    flips = count_flips(frames)
    assert flips.flips < 0.15 * 60 * 12  # of the 720 points that the card leaves behind it


def test_points_are_counted_on_the_grid_of_a_large_picture() -> None:
    large = cv2.resize(_texture(), (1280, 960))
    first = np.zeros((960, 1280), np.uint8)
    second = first.copy()
    second[:240] = CAR
    flips = count_flips([(large, first, 0.0), (large, second, 0.1)])
    assert flips.points == 640 * 480
    assert flips.flips == 640 * 120


def test_mask_of_another_size_than_its_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="mask of"):
        count_flips([(_texture(), np.zeros((5, 5), np.uint8), 0.0)])
