import numpy as np
import pytest

from mfuser_ros import vocabulary
from mfuser_ros.evaluation.drive.record import (
    DriveRecord,
    FrameRecord,
    class_shares,
    drivable_distance,
    percentiles,
)

GRID = {"resolution": 0.5, "x_min": -1.0, "y_min": -2.0}  # 8 rows (y -2..2), columns of half a metre from x = -1


def grid(free_columns):
    """8 x 12 cells: the columns named are free in their whole width."""
    occupancy = np.full((8, 12), -1, np.int8)
    occupancy[:, free_columns] = 0
    return occupancy


def test_shares_count_each_class_and_the_unknown_last():
    mask = np.array([[0, 0, 2], [255, 1, 0]], np.uint8)
    np.testing.assert_allclose(class_shares(mask, 3), [3 / 6, 1 / 6, 1 / 6, 1 / 6])


def test_free_way_ends_at_the_first_column_that_is_not_free():
    occupancy = grid(slice(4, 9))  # columns 4..8: x = 1.0 .. 3.5
    assert drivable_distance(occupancy, **GRID) == pytest.approx(3.5)


def test_free_way_begins_after_the_blind_zone_and_does_not_jump_gaps():
    occupancy = grid([5, 6, 7, 9, 10])  # a gap at column 8, x = 3.0
    assert drivable_distance(occupancy, **GRID) == pytest.approx(3.0)


def test_obstacle_in_the_corridor_stops_the_way_and_one_beside_it_does_not():
    occupancy = grid(slice(2, 12))
    occupancy[7, 6] = 100  # y 1.5..2: beside the corridor of 1.8 m
    assert drivable_distance(occupancy, **GRID) == pytest.approx(5.0)
    occupancy[5, 6] = 100  # y 0.5..1: within it, x = 2.0
    assert drivable_distance(occupancy, **GRID) == pytest.approx(2.0)


def test_free_cells_behind_do_not_count():
    assert drivable_distance(grid([0, 1]), **GRID) == 0.0


def test_grid_beside_the_vehicle_tells_nothing():
    assert drivable_distance(grid([4]), resolution=0.5, x_min=-1.0, y_min=5.0) is None


def test_percentiles_are_linear():
    assert percentiles([float(value) for value in range(101)]) == (50, 95, 99)
    assert np.isnan(percentiles([])).all()


def test_mean_shares_are_over_all_frames():
    classes = vocabulary.load()
    shares = np.zeros((2, 20))
    shares[0, 0] = shares[1, 10] = 1.0
    record = DriveRecord(classes, [FrameRecord(0.0, 10.0, row, None, None, None) for row in shares])
    assert record.mean_shares()[[0, 10]].tolist() == [0.5, 0.5]
    assert record.round_trip() == (10, 10, 10)
