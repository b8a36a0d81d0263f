import numpy as np
import pytest

from mfuser_ros.drivable import GridSpec
from mfuser_ros.errors import ConfigurationError


def test_default_grid_has_150_rows_of_225_cells():
    spec = GridSpec()

    assert (spec.rows, spec.cols) == (150, 225)  # 30 m / 0.2 m and 45 m / 0.2 m


def test_last_cell_covers_what_is_left_of_an_extent():
    assert GridSpec(0, 1, 0, 1, 0.4).cols == 3


def test_cell_index_counts_along_x_first():
    spec = GridSpec(-5.0, 40.0, -15.0, 15.0, 0.2)
    points = np.array([[-5.0, -15.0], [-4.7, -15.0], [-5.0, -14.7], [40.1, 0.0], [0.0, 15.1]])

    np.testing.assert_array_equal(spec.cell_of(points), [0, 1, 225, -1, -1])


def test_lattice_holds_the_corners_of_each_cell():
    lattice = GridSpec(1.0, 2.0, -1.0, 0.0, 0.5).lattice()

    np.testing.assert_allclose(lattice[0, 0], [1.0, -1.0])
    np.testing.assert_allclose(lattice[2, 1], [1.5, 0.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-5, 40, -15, 15, 0.0), "resolution 0"),
        ((-5, 40, -15, 15, -0.2), "resolution"),
        ((40, -5, -15, 15, 0.2), "x_min 40"),
        ((-5, 40, 15, 15, 0.2), "y_min 15"),
        ((-5, 40, -15, np.nan, 0.2), "not finite"),
        ((-5, 40, -15, 15, 0.01), "4500 x 3000"),
    ],
)
def test_impossible_grid_is_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        GridSpec(*arguments)
