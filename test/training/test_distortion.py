"""The published change of colours, against the same steps of OpenCV on bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mfuser_ros.network.config import CLIP_MEAN
from mfuser_ros.training import distortion
from mfuser_ros.training.distortion import NOT_SEEN, Distortion
from mfuser_ros.training.draws import Draws

CPU = torch.device("cpu")


@pytest.fixture
def colours() -> torch.Tensor:
    """(1, 3, 64, 64) bytes of every kind."""
    return torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()


def _bgr(picture: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(picture[0].flip(0).permute(1, 2, 0).byte().numpy())


def _assert_close(ours: torch.Tensor, bgr: np.ndarray) -> None:
    # OpenCV's hue of bytes is off by one now and then, which is a 30th of the way between two colours
    difference = np.abs(_bgr(ours).astype(int) - bgr)
    assert difference.max() <= 9
    assert (difference > 0).mean() < 0.03


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.37])
def test_saturation_equals_opencvs(colours: torch.Tensor, gain: float) -> None:
    hsv = cv2.cvtColor(_bgr(colours), cv2.COLOR_BGR2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1].astype(np.float32) * gain, 0, 255).astype(np.uint8)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    _assert_close(distortion.saturated(colours, torch.tensor(gain).view(1, 1, 1, 1)), expected)


@pytest.mark.parametrize("shift", [-18, 0, 17])
def test_hue_equals_opencvs(colours: torch.Tensor, shift: int) -> None:
    hsv = cv2.cvtColor(_bgr(colours), cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + shift) % 180
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    _assert_close(distortion.turned(colours, torch.tensor(float(shift)).view(1, 1, 1, 1)), expected)


def test_brightness_and_contrast_are_clipped_and_truncated() -> None:
    picture = torch.tensor([10.0, 100.0, 250.0]).view(1, 1, 1, 3)
    assert distortion.scaled(picture, 1, -20.5).flatten().tolist() == [0, 79, 229]
    assert distortion.scaled(picture, 1.33, 0).flatten().tolist() == [13, 133, 255]


def test_each_step_happens_to_about_half_of_the_samples() -> None:
    torch.manual_seed(0)
    picture = torch.tensor([90.0, 120.0, 60.0]).view(1, 3, 1, 1).expand(4000, 3, 8, 8)
    changed = Distortion()(picture, Draws([4000], CPU))[:, :, 0, 0]
    untouched = (changed == picture[:, :, 0, 0]).all(1).float().mean()
    assert 1 / 16 < untouched < 0.16  # all four left out, or drawn next to nothing (hue and saturation in bytes)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert torch.equal(changed, changed.round())


def test_outside_of_the_picture_normalises_to_nothing(colours: torch.Tensor) -> None:
    picture = colours.clone()
    picture[:, :, 40:] = NOT_SEEN
    torch.manual_seed(0)
    changed = Distortion()(picture, Draws([1], CPU))
    torch.testing.assert_close(changed[0, :, 50, 10], torch.tensor(CLIP_MEAN), atol=1e-4, rtol=0)
    assert (changed[:, :, :40] == changed[:, :, :40].round()).all()


def test_no_value_is_read_back_from_the_device() -> None:
    with FakeTensorMode():
        changed = Distortion()(torch.rand(3, 3, 64, 96) * 255, Draws([3], CPU))
    assert changed.shape == (3, 3, 64, 96)
