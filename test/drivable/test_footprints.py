import numpy as np
import pytest
from witness_cameras import WITNESSES

from mfuser_ros.drivable import GridSpec
from mfuser_ros.drivable.footprints import Footprints, plan_footprints
from mfuser_ros.drivable.ground import MountedCamera

SPEC = GridSpec(0.0, 24.0, -6.0, 6.0, 0.4)


def planned(name: str) -> tuple[Footprints, MountedCamera]:
    mounted = MountedCamera(WITNESSES[name].camera, WITNESSES[name].pose)
    return plan_footprints(mounted, SPEC, 1.0), mounted


def dense_points(cell: int, per_side: int = 41) -> np.ndarray:
    row, column = divmod(int(cell), SPEC.cols)
    ticks = np.linspace(0, SPEC.resolution, per_side)
    x, y = np.meshgrid(SPEC.x_min + column * SPEC.resolution + ticks, SPEC.y_min + row * SPEC.resolution + ticks)
    return np.column_stack([x.ravel(), y.ravel()])


def pixels_of(footprints: Footprints, index: int) -> set[tuple[int, int]]:
    stop = footprints.first_run[index + 1] if index + 1 < len(footprints.cells) else len(footprints.rows)
    runs = range(footprints.first_run[index], stop)
    return {(u, footprints.rows[r]) for r in runs for u in range(footprints.starts[r], footprints.stops[r])}


@pytest.mark.parametrize("name", WITNESSES)
def test_footprint_holds_every_pixel_that_the_cell_overlaps_and_none_further_than_one(name):
    footprints, _ = planned(name)
    witness = WITNESSES[name]
    rng = np.random.default_rng(3)
    assert len(footprints.cells) > 300

    for index in rng.choice(len(footprints.cells), 60, replace=False):
        points = dense_points(footprints.cells[index])
        solid = np.column_stack([points, np.zeros(len(points))]) - witness.pose[:3, 3]
        projected = witness.project(solid @ witness.pose[:3, :3])
        overlapped = {tuple(pixel) for pixel in np.rint(projected).astype(int)}
        claimed = pixels_of(footprints, index)

        assert overlapped <= claimed
        farthest = max(np.abs(projected - pixel).max(axis=1).min() for pixel in claimed)
        # the densest points leave gaps of one 40th of the longest side
        assert farthest <= 1.0 + np.ptp(projected, axis=0).max() / 40


def test_cell_smaller_than_a_pixel_asks_the_pixels_on_both_sides():
    footprints, mounted = planned("pinhole")
    index = int(
        np.argmax(footprints.cells % SPEC.cols)
    )  # among the farthest: 500 px * 1.5 m * 0.4 m / (22 m)^2 = 0.6 px
    pixels = mounted.project(dense_points(footprints.cells[index]))

    rows = {row for _, row in pixels_of(footprints, index)}

    assert np.ptp(pixels[:, 1]) < 1
    assert {int(np.floor(pixels[:, 1].min())), int(np.ceil(pixels[:, 1].max()))} <= rows


def test_cell_with_a_corner_beyond_the_outermost_pixel_centres_is_not_seen():
    footprints, mounted = planned("pinhole")
    lattice = SPEC.lattice()
    uv = mounted.project(lattice)
    inside = (uv >= 0).all(axis=-1) & (uv <= [639, 359]).all(axis=-1)
    row, column = np.divmod(footprints.cells, SPEC.cols)

    assert all(inside[row + i, column + j].all() for i in (0, 1) for j in (0, 1))


def test_cell_where_a_pixel_covers_more_ground_than_allowed_is_not_seen():
    mounted = MountedCamera(WITNESSES["pinhole"].camera, WITNESSES["pinhole"].pose)

    cells = plan_footprints(mounted, SPEC, 0.2).cells

    # a level pinhole's pixel covers x^2 / (h f) metres: 0.2 m at sqrt(0.2 * 1.5 * 505) = 12.3 m from the camera
    farthest = SPEC.x_min + SPEC.resolution * (cells % SPEC.cols + 1).max()
    assert farthest == pytest.approx(1.5 + 12.3, abs=0.5)
