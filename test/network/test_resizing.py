"""Pictures are resized as OpenCV does it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mfuser_ros.network.resizing import shrinking

CPU = torch.device("cpu")


@pytest.mark.parametrize(("height", "width"), [(20, 33), (90, 100), (45, 30), (45, 61)])
def test_resizing_by_products_is_that_of_opencv_but_for_its_rounding(height, width):
    picture = np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)
    rows, columns = shrinking(45, height, CPU), shrinking(61, width, CPU)

    found = torch.einsum("hH,HWc,wW->hwc", rows, torch.from_numpy(picture).float(), columns)

    method = cv2.INTER_AREA if height * width < 45 * 61 else cv2.INTER_LINEAR
    expected = cv2.resize(picture, (width, height), interpolation=method)
    assert np.abs(found.numpy() - expected).max() <= 1  # OpenCV rounds in between, in fixed point
