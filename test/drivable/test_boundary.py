import numpy as np
import pytest

from mfuser_ros.drivable import GridSpec
from mfuser_ros.drivable.boundary import Sweep

SPEC = GridSpec(-10.0, 20.0, -10.0, 10.0, 0.2)
X, Y = np.meshgrid(-9.9 + 0.2 * np.arange(150), -9.9 + 0.2 * np.arange(100))


def grid(free: np.ndarray, occupied: np.ndarray | None = None) -> np.ndarray:
    occupancy = np.where(free, 0, -1).astype(np.int8)
    if occupied is not None:
        occupancy[occupied] = 100
    return occupancy


def area(polygon: np.ndarray) -> float:
    x, y = polygon.astype(float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def crossings(polygon: np.ndarray) -> int:
    """Pairs of sides that meet elsewhere than at a shared corner."""
    a, b = polygon.astype(float), np.roll(polygon.astype(float), -1, axis=0)

    def side(p, q, r):
        return np.sign(
            (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        )

    i, j = np.triu_indices(len(a), 2)
    keep = ~((i == 0) & (j == len(a) - 1))
    i, j = i[keep], j[keep]
    straddles = (side(a[i], b[i], a[j]) * side(a[i], b[i], b[j]) < 0) & (
        side(a[j], b[j], a[i]) * side(a[j], b[j], b[i]) < 0
    )
    return int(straddles.sum())


def inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = polygon.astype(float).T
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    px, py = points[:, :1], points[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        crosses = ((y > py) != (y2 > py)) & (px < (x2 - x) * (py - y) / (y2 - y) + x)
    return crosses.sum(axis=1) % 2 == 1


AHEAD = (X > 3) & (X < 15) & (np.abs(Y) < 4) & (np.abs(Y) < 0.7 * X)
SCENES = {
    "road ahead": grid(AHEAD),
    "thing in the way": grid(
        AHEAD & ~((X > 8) & (np.abs(Y - 1) < 0.5)), (np.abs(X - 8.1) < 0.1) & (np.abs(Y - 1) < 0.5)
    ),
    "round the vehicle": grid(np.hypot(X, Y) < 8),
    "round a blind zone": grid((np.hypot(X, Y) < 8) & (np.hypot(X, Y) > 2)),
    "speckled": grid(AHEAD & (np.random.default_rng(0).random(X.shape) > 0.02)),
    "behind": grid((X < -2) & (np.abs(Y) < 3)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_outline_is_simple_counter_clockwise_and_holds_nothing_occupied(scene):
    occupancy = SCENES[scene]

    outline = Sweep.plan(SPEC).outline(occupancy)

    assert outline.dtype == np.float32
    assert outline.ndim == 2
    assert len(outline) >= 3
    assert len(np.unique(outline, axis=0)) == len(outline)
    assert area(outline) > 0
    assert crossings(outline) == 0
    occupied = np.column_stack([X[occupancy == 100], Y[occupancy == 100]])
    assert not inside(outline, occupied).any()


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("road ahead", 12 * 8 - 0.5 * (4 / 0.7 - 3) * (4 - 2.1) * 2),  # a rectangle less two corners
        ("round the vehicle", np.pi * 64),
        ("round a blind zone", np.pi * 64),  # the vehicle stands inside
        ("behind", 8 * 6),
    ],
)
def test_outline_encloses_the_free_area(scene, expected):
    assert area(Sweep.plan(SPEC).outline(SCENES[scene])) == pytest.approx(expected, rel=0.03)


def test_ray_ends_where_free_ground_ends():
    outline = Sweep.plan(SPEC).outline(SCENES["thing in the way"])

    shadowed = np.column_stack([np.arange(8.2, 15, 0.2), np.arange(8.2, 15, 0.2) / 8.1])
    assert not inside(outline, shadowed).any()
    assert inside(outline, np.array([[7.5, 0.9], [12.0, -1.0]])).all()


def test_free_ground_behind_something_occupied_is_not_seen_from_the_vehicle():
    occupancy = grid((X > 10) & (np.abs(Y) < 3), (np.abs(X - 5) < 0.2) & (np.abs(Y) < 9))

    assert Sweep.plan(SPEC).outline(occupancy).shape == (0, 2)


def test_nothing_free_has_no_outline():
    assert Sweep.plan(SPEC).outline(grid(np.zeros_like(X, bool))).shape == (0, 2)


def test_grid_away_from_the_vehicle_is_seen_from_its_origin():
    spec = GridSpec(5.0, 15.0, -5.0, 5.0, 0.5)

    outline = Sweep.plan(spec).outline(np.zeros((20, 20), np.int8))

    assert area(outline) == pytest.approx(100, rel=0.05)
