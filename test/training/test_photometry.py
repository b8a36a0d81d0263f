"""Changes of light and quality against OpenCV, identities, and the promise never to read a value back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mfuser_ros.training import photometry
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.photometry import Photometry

CPU = torch.device("cpu")


@pytest.fixture
def street() -> torch.Tensor:
    """(2, 3, 64, 96) smooth coloured picture, 0..1."""
    y, x = torch.linspace(0, 1, 64)[:, None], torch.linspace(0, 1, 96)[None]
    picture = torch.stack([y.expand(64, 96), x.expand(64, 96), 0.5 + 0.4 * torch.sin(9 * (x + y))])
    return torch.stack([picture, picture.flip(2)])


def test_result_is_whole_numbers_of_a_picture(street: torch.Tensor) -> None:
    torch.manual_seed(0)
    changed = Photometry()(255 * street.repeat(8, 1, 1, 1), Draws([16], CPU))
    assert changed.min() >= 0
    assert changed.max() <= 255
    torch.testing.assert_close(changed, changed.round())
    means = changed.mean((1, 2, 3))
    assert means.std() > 10  # every sample got its own light
    assert means.min() > 255 * photometry.DARKEST / 2  # and none is black


def test_blur_equals_opencv(street: torch.Tensor) -> None:
    ours = photometry.blurred(street, torch.tensor([1.2, 0.6]).view(2, 1, 1, 1))
    for sample, sigma in ((0, 1.2), (1, 0.6)):
        picture = street[sample].permute(1, 2, 0).numpy()
        reference = cv2.GaussianBlur(picture, (11, 11), sigma, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(ours[sample].permute(1, 2, 0).numpy(), reference, atol=1e-5)


def test_jpeg_of_a_grey_picture_equals_opencvs(street: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    # grey: only the brightness is coded, so the enlargement of the colours, which differs, plays no part
    monkeypatch.setattr(Draws, "uniform", lambda self, low, high: torch.full((2, 1, 1, 1), 30.0))
    grey = (255 * street[:, 2:].expand(-1, 3, -1, -1)).round()
    ours = 255 * Photometry().as_jpeg(grey / 255, Draws([2], CPU))

    _, file = cv2.imencode(".jpg", grey[0, 0].byte().numpy(), [cv2.IMWRITE_JPEG_QUALITY, 30])
    reference = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE).astype(np.float32)

    difference = np.abs(ours[0, 1].numpy() - reference)
    assert np.abs(reference - grey[0, 0].numpy()).mean() > 1  # there is something to reproduce
    assert difference.mean() < 0.4  # OpenCV rounds to whole numbers
    assert np.quantile(difference, 0.98) < 3  # a coefficient halfway between two steps may fall to either side


def test_no_turn_of_the_hue_is_no_change(street: torch.Tensor) -> None:
    ours = Photometry().turned(street, torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1))
    torch.testing.assert_close(ours, street, atol=1e-3, rtol=0)


def test_no_saturation_is_grey(street: torch.Tensor) -> None:
    ours = Photometry().turned(street, torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
    assert (ours.amax(1) - ours.amin(1)).max() < 2e-3


def test_low_resolution_keeps_the_place_of_things(street: torch.Tensor) -> None:
    torch.manual_seed(0)
    ours = photometry.at_low_resolution(street, Draws([2], CPU))
    assert (ours - street).abs().mean() < 0.02  # smooth: nothing moves and little is lost
    noise = torch.rand(2, 3, 64, 96)
    assert photometry.at_low_resolution(noise, Draws([2], CPU)).std() < 0.7 * noise.std()


def test_style_mix_moves_towards_the_other_picture(street: torch.Tensor) -> None:
    torch.manual_seed(4)  # both samples draw the other one
    dark, bright = 0.2 * street[:1], 0.5 + 0.5 * street[1:]
    mixed = photometry.style_mixed(torch.cat([dark, bright]), Draws([2], CPU))
    assert dark.mean() + 0.05 < mixed[0].mean() < bright.mean()
    assert dark.mean() < mixed[1].mean() < bright.mean() - 0.05


def test_no_value_is_read_back_from_the_device() -> None:
    # fake tensors have no values: an .item(), a boolean index or a branch on a value raises
    with FakeTensorMode():
        changed = Photometry()(torch.rand(3, 3, 64, 96) * 255, Draws([3], CPU))
    assert changed.shape == (3, 3, 64, 96)
