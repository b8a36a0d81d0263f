import itertools

import numpy as np
import pytest

from mfuser_ros.drivable.resampling import Reading, Turned

SOURCE, TARGET = (23, 31), (26, 34)


def corners(turned: Turned, half: float) -> np.ndarray:
    """(rows, cols, 625, 2) column and row of points all over each target square, `half` cells to either side."""
    along, up = np.meshgrid(np.arange(TARGET[1]), np.arange(TARGET[0]))
    ticks = np.linspace(-half, half, 25)
    spots = np.array(list(itertools.product(ticks, ticks)))
    x, y = along[..., None] + spots[:, 0], up[..., None] + spots[:, 1]
    return np.stack(
        [
            turned.column_0 + turned.cos * x - turned.sin * y,
            turned.row_0 + turned.sin * x + turned.cos * y,
        ],
        axis=-1,
    )


def flagged_anywhere(flags: np.ndarray, points: np.ndarray, *, outside: bool) -> np.ndarray:
    column, row = np.moveaxis(np.floor(points).astype(int), -1, 0)
    inside = (column >= 0) & (column < SOURCE[1]) & (row >= 0) & (row < SOURCE[0])
    found = flags[np.clip(row, 0, SOURCE[0] - 1), np.clip(column, 0, SOURCE[1] - 1)]
    return np.where(inside, found, outside).any(axis=-1)


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_square_touches_what_any_point_of_it_lies_in_and_little_more(seed, outside):
    random = np.random.default_rng(seed)
    angle = random.uniform(-np.pi, np.pi) if seed > 3 else seed * np.pi / 2
    middle = np.array([SOURCE[1] / 2, SOURCE[0] / 2]) + random.uniform(-9, 9, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    first = middle - [
        cos * TARGET[1] / 2 - sin * TARGET[0] / 2,
        sin * TARGET[1] / 2 + cos * TARGET[0] / 2,
    ]
    turned = Turned(float(cos), float(sin), float(first[0]), float(first[1]))
    flags = random.random(SOURCE) < 0.15

    (touched,) = Reading(turned, TARGET, SOURCE).touches((flags, outside))

    surely = flagged_anywhere(flags, corners(turned, 0.5 - 1e-6), outside=outside)
    at_most = flagged_anywhere(flags, corners(turned, 0.5 + 0.12), outside=outside)
    assert 0.1 < touched.mean() < 0.9 or outside
    assert not (surely & ~touched).any()
    assert not (touched & ~at_most).any()


def test_lattices_that_do_not_meet_touch_only_the_outside():
    away = Turned(1.0, 0.0, 500.5, -300.5)
    flags = np.ones(SOURCE, bool)

    within, beyond = Reading(away, TARGET, SOURCE).touches((flags, False), (~flags, True))

    assert not within.any()
    assert beyond.all()
