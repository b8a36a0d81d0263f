"""Autoware's mask: its classes, run by run."""

from __future__ import annotations

import numpy as np
import pytest

from mfuser_ros import vocabulary
from mfuser_ros.node.autoware import class_table, run_lengths


def decoded(data: bytes, height: int, width: int) -> np.ndarray:
    """As image_projection_based_fusion reads it: records of a byte and a little-endian int32."""
    pixels: list[int] = []
    for at in range(0, len(data), 5):
        pixels += [data[at]] * int.from_bytes(data[at + 1 : at + 5], "little", signed=True)
    return np.array(pixels, np.uint8).reshape(height, width)


def test_runs_are_those_of_a_mask_worked_out_by_hand():
    mask = np.array([[9, 9, 15], [15, 15, 0]], np.uint8)

    assert run_lengths(mask).tobytes() == bytes([9, 2, 0, 0, 0, 15, 3, 0, 0, 0, 0, 1, 0, 0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (37, 1), (48, 64)])
@pytest.mark.parametrize("classes", [1, 2, 16])
def test_decoded_runs_are_the_mask(shape, classes):
    mask = np.random.default_rng(classes).integers(0, classes, shape, np.uint8)

    assert run_lengths(mask).itemsize == 5
    np.testing.assert_array_equal(decoded(run_lengths(mask).tobytes(), *shape), mask)


def test_run_longer_than_16_bits_is_one_record():
    assert run_lengths(np.zeros((720, 1280), np.uint8)).tolist() == [(0, 921600)]


def test_classes_are_those_of_autowares_parameter_file():
    ids = [9, 10, 1, 2, 3, 3, 4, 5, 14, 14, 15, 6, 6, 7, 7, 7, 7, 8, 8]

    table = class_table(vocabulary.load())

    assert table[:19].tolist() == ids
    assert set(table[19:].tolist()) == {0}
