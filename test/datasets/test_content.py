"""What a split holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.content import content_of
from mfuser_ros.datasets.sample import Sample

CAMVID = load_config(Path(__file__).parents[2] / "config" / "datasets" / "camvid.yaml")


def _sample(*ids: int) -> Sample:
    label = np.array([ids], np.uint8)
    return Sample(np.zeros((*label.shape, 3), np.uint8), label, "a")


def test_shares_are_of_the_labelled_pixels():
    content = content_of([_sample(3, 3, 0, 255), _sample(3, 255, 255, 255), _sample(0, 0)])
    assert content.pictures == 3
    shares = {name: (share, pictures) for name, share, pictures in content.shares(CAMVID)}
    assert shares["road"] == (pytest.approx(3 / 6), 2)
    assert shares["sky"] == (pytest.approx(3 / 6), 2)
    assert shares["car"] == (0.0, 0)
    assert content.unlabelled == pytest.approx(4 / 10)
    assert content.sizes == {(1, 4): 2, (1, 2): 1}


def test_nothing_has_no_share():
    content = content_of([])
    assert content.unlabelled == 0.0
    assert all(share == 0 for _, share, _ in content.shares(CAMVID))
