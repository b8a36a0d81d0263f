"""A region of interest: the rest of the picture is unknown, and the ground is seen through the region alone."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in import picture

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.settings import settings


def pixels(message) -> np.ndarray:
    return np.array(message.data, np.uint8).reshape(message.height, message.width)


def cells(grid) -> np.ndarray:
    return np.array(grid.data, np.int8).reshape(grid.info.height, grid.info.width)


@pytest.mark.parametrize("value", [[0, 0, 640], [0, 0, 640, 10], [0, -1, 640, 480]])
def test_region_that_cannot_be_is_refused_by_name(value):
    with pytest.raises(ConfigurationError, match=r"front\.roi|<cam>\.roi"):
        settings({"front.roi": value})


def test_network_sees_the_region_and_the_mask_is_unknown_outside(bench):
    bench = bench(front__roi=[10, 20, 70, 64])
    rgb = picture(100, 120)

    mask = pixels(bench.segment(rgb))

    np.testing.assert_array_equal(bench.segmenter.pictures[-1], rgb[20:84, 10:80])
    inside = np.zeros(mask.shape, bool)
    inside[20:84, 10:80] = True
    assert (mask[~inside] == 255).all()
    assert (mask[inside] != 255).any()
    bench.wait(lambda: bench.confidences, "no confidence")
    assert not pixels(bench.confidences[-1])[~inside].any()


def test_ground_below_the_region_is_blind_and_what_lies_ahead_still_free(bench, road, forward):
    """Row 199.5 of 240 is 80 px below the middle: 1.5 m * 300 px / 80 px = 5.6 m ahead."""
    bench = bench(front__pose=forward, front__roi=[0, 0, 320, 200])

    grid = cells(bench.segment_with_grid(road))

    def cell(x: float, y: float) -> int:
        return int(grid[int((y + 15) / 0.2), int((x + 5) / 0.2)])

    assert cell(5.1, 0.1) == -1  # would be seen in the whole picture
    assert cell(10.1, 0.1) == 0  # connected over the blind zone of the region


def test_region_outside_the_picture_gives_no_mask_and_an_error_that_names_it(bench):
    bench = bench(front__roi=[0, 0, 320, 64])

    bench.send(picture(48, 64))
    bench.wait_for_status(b"\x02", "front.roi is [0, 0, 320, 64], outside the 64x48 picture")

    assert bench.masks == []
