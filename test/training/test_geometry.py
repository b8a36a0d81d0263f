"""Crops: picture and label stay together, the outside is unlabelled."""

from __future__ import annotations

import torch

from mfuser_ros.training.draws import Draws
from mfuser_ros.training.geometry import Geometry

CPU = torch.device("cpu")


def _scene(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of 16 pixels; red is ten times the label."""
    rows, columns = torch.arange(height) // 16, torch.arange(width) // 16
    label = ((rows[:, None] * 3 + columns[None]) % 19).to(torch.uint8)
    picture = torch.stack([label * 10, torch.zeros_like(label), 255 - label * 10])
    return picture.expand(batch, -1, -1, -1), label.expand(batch, -1, -1)


def test_picture_and_label_are_cut_alike() -> None:
    torch.manual_seed(3)
    picture, label = _scene(12, 96, 128)

    cut, ids = Geometry(crop=(64, 96), scale=(1.5, 2.5))(
        picture, label, torch.tensor([[96.0, 128.0]] * 12), (96, 128), Draws([12], CPU)
    )

    assert cut.shape == (12, 3, 64, 96)
    assert ids.dtype == torch.uint8
    labelled = ids != 255
    same = (cut[:, 0] - 10.0 * ids).abs() < 1
    assert same[labelled].float().mean() > 0.85  # the rest lies on the rims of blocks, where bilinear mixes
    assert len({tuple(crop.flatten().tolist()) for crop in ids}) == 12  # every sample has its own parameters


def test_scale_one_without_rotation_is_a_plain_crop_or_its_mirror() -> None:
    torch.manual_seed(0)
    picture, label = _scene(8, 64, 96)
    geometry = Geometry(crop=(64, 96), scale=(1.0, 1.0 + 1e-9), aspect=0.0, rotation_deg=0.0)

    cut, ids = geometry(picture, label, torch.tensor([[64.0, 96.0]] * 8), (64, 96), Draws([8], CPU))

    plain = [(crop == label[0]).float().mean() > 0.99 for crop in ids]
    mirrored = [(crop == label[0].flip(1)).float().mean() > 0.99 for crop in ids]
    assert all(a or b for a, b in zip(plain, mirrored, strict=True))
    assert any(plain)
    assert any(mirrored)
    torch.testing.assert_close(cut[plain.index(True)], picture[0].float(), atol=0.6, rtol=0)


def test_small_picture_lies_whole_inside_the_crop() -> None:
    torch.manual_seed(1)
    picture, label = _scene(6, 64, 96)
    geometry = Geometry(crop=(128, 192), scale=(0.5, 0.5 + 1e-9), aspect=0.0, rotation_deg=0.0)

    cut, ids = geometry(picture, label, torch.tensor([[64.0, 96.0]] * 6), (128, 192), Draws([6], CPU))

    assert [(crop != 255).sum().item() for crop in ids] == [64 * 96] * 6
    assert (cut[:, 1][ids == 255] == 127).all()


def test_padding_of_the_storage_is_never_seen() -> None:
    torch.manual_seed(2)
    picture, label = (tensor.clone() for tensor in _scene(8, 96, 128))
    picture[:, :, 48:], picture[:, :, :, 64:] = 255, 255
    label[:, 48:], label[:, :, 64:] = 7, 7

    cut, ids = Geometry(crop=(64, 96))(picture, label, torch.tensor([[48.0, 64.0]] * 8), (96, 128), Draws([8], CPU))

    # blue falls with the label, green is 0 in the scene: white padding would show in green
    inner = (ids != 255) & (ids != 7)
    assert (cut[:, 1][inner] < 130).all()
    seen = cut[:, 1][(ids != 255)]
    assert (seen < 1).float().mean() > 0.97  # a rim half a pixel wide may mix with the padding
