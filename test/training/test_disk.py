"""Pictures that stay on disk: windows make the crops that whole pictures would, the rules of drawing hold."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.packed import PackedDataset
from mfuser_ros.errors import ConfigurationError, DatasetError
from mfuser_ros.training.config import CropConfig, TrainConfig
from mfuser_ros.training.crops import Crop, draw_published, draw_wide, nearest_ids
from mfuser_ros.training.disk import DiskSource, cut_window, label_pixels
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.geometry import Cuts, Geometry, sample
from mfuser_ros.training.sources import Source, open_source

CPU = torch.device("cpu")


def _cut(
    picture: np.ndarray, label: np.ndarray, crop: Crop, size: tuple[int, int], storage: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    window = cut_window(picture, label, crop, size, storage)
    assert window.picture.shape[1:] == storage
    now = type(window)(*(part[None] for part in window))
    return sample(now.picture, now.label, now.size, Cuts(now.centre, now.factor, now.angle, now.flip), size)


def _scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = cv2.resize(rng.integers(0, 19, (height // 16, width // 16), np.uint8), (width, height), interpolation=0)
    return rng.integers(0, 256, (height, width, 3), np.uint8), label


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_published_crop_is_that_of_the_resized_picture(scale: float, seed: int) -> None:
    picture, label = _scene(96, 160)
    config = CropConfig(size=(32, 48), scale=(scale, scale + 1e-9))
    crop = draw_published(np.random.default_rng(seed), label, config, None)

    cut, ids = _cut(picture, label, crop, (32, 48), (72, 104))

    # as published: resize the whole picture, cut, mirror
    within = min(int(96 * scale) / 96, int(160 * scale) / 160)
    size = (int(160 * within + 0.5), int(96 * within + 0.5))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    top, left = np.round(crop.centre * crop.factor - (16, 24)).astype(int)
    expected = resized[top : top + 32, left : left + 48]
    expected = expected[:, ::-1] if crop.mirrored else expected
    assert expected.shape == (32, 48, 3)
    difference = np.abs(cut[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() < 1.01  # OpenCV rounds to whole numbers, with weights of 11 bits
    upright = nearest_ids(label, crop, (32, 48))
    same = ids[0].numpy() == (upright[:, ::-1] if crop.mirrored else upright)
    assert same.mean() > 0.97  # a centre on the border of two pixels may fall to either


def test_picture_smaller_than_the_crop_lies_in_its_corner() -> None:
    _picture, label = _scene(64, 64)
    crop = draw_published(np.random.default_rng(0), label, CropConfig(size=(48, 48), scale=(0.5, 0.5)), None)
    assert crop.factor.tolist() == [0.5, 0.5]
    ids = nearest_ids(label, crop, (48, 48))
    assert (ids[:32, :32] != 255).all()
    assert (ids[32:] == 255).all()
    assert (ids[:, 32:] == 255).all()


def test_turned_window_gives_the_crop_of_the_whole_picture() -> None:
    picture, label = _scene(200, 300)
    crop = Crop(np.array([90.0, 140.0]), np.array([0.9, 1.1]), angle=0.1, mirrored=True)

    cut, ids = _cut(picture, label, crop, (64, 96), (136, 200))
    whole, whole_ids = _cut(picture, label, crop, (64, 96), (200, 300))

    torch.testing.assert_close(cut, whole, atol=0.02, rtol=0)
    assert (ids == whole_ids).float().mean() > 0.999


def test_window_larger_than_its_storage_is_shrunk() -> None:
    label = np.repeat(np.arange(16, dtype=np.uint8), 16)[None].repeat(128, 0)  # 16 stripes of 16 pixels
    picture = np.repeat(label[..., None] * 10, 3, 2)
    crop = Crop(np.array([64.0, 128.0]), np.array([0.25, 0.25]), angle=0.0, mirrored=False)  # the whole, 32 x 64

    cut, ids = _cut(picture, label, crop, (32, 64), (40, 72))

    middle = ids[0, 16, 2::4]
    assert middle.tolist() == list(range(16))
    assert (cut[0, 0, 16, 2::4] - 10 * middle.float()).abs().max() < 3


def test_crop_of_one_class_is_drawn_anew() -> None:
    label = np.zeros((64, 640), np.uint8)
    label[:, 600:] = 1  # a crop of 32 x 32 shows both classes in one place of ten
    config = CropConfig(size=(32, 32), scale=(1, 1))
    rng = np.random.default_rng(0)

    mixed = sum(
        len(np.unique(nearest_ids(label, draw_published(rng, label, config, None), (32, 32)))) for _ in range(200)
    )

    # without drawing anew about 31 of 609 places show both; with eleven tries 1 - (1 - 16/609) ** 11 = 25 % pass
    assert 1.15 < mixed / 200 < 1.45


def test_wide_crops_follow_the_geometry_of_the_device() -> None:
    geometry = Geometry(crop=(64, 96), scale=(0.6, 1.8), aspect=0.2, rotation_deg=3)
    config = CropConfig(size=(64, 96), scale=(0.6, 1.8), aspect=0.2, rotation_deg=3)
    label, rng = np.zeros((90, 150), np.uint8), np.random.default_rng(0)
    ours = [draw_wide(rng, label, config, (80, 160)) for _ in range(4000)]
    torch.manual_seed(0)

    theirs = geometry.draw(torch.tensor([[90.0, 150.0]] * 4000), (80, 160), Draws([4000], CPU))
    for name in ("centre", "factor"):
        mine, other = np.array([getattr(crop, name) for crop in ours]), getattr(theirs, name).numpy()
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            spread = np.quantile(other, 0.95, 0) - np.quantile(other, 0.05, 0)
            assert (np.abs(np.quantile(mine, share, 0) - np.quantile(other, share, 0)) < 0.06 * spread).all(), name
    assert np.std([crop.angle for crop in ours]) == pytest.approx(np.radians(3), rel=0.1)
    assert np.mean([crop.mirrored for crop in ours]) == pytest.approx(0.5, abs=0.05)


@pytest.fixture
def from_disk(recipe: TrainConfig) -> TrainConfig:
    """The Cityscapes source alone, from disk, in the published manner."""
    content = recipe.model_dump()
    rare = {"temperature": 100, "picture_pixels": 200, "crop_pixels": 100, "tries": 10}
    source = {**content["sources"][0], "where": "disk", "samples": 4, "nominal": None, "rare": {}, "rare_classes": rare}
    content |= {"sources": [source], "augmentation": "published", "workers": 2}
    content["crop"] = {"size": (32, 32), "scale": (0.5, 2.0)}
    return TrainConfig.model_validate(content)


def _open(recipe: TrainConfig, data: Path, cache: Path) -> DiskSource:
    source = open_source(recipe.sources[0], recipe, data, CPU, number=0, cache=cache)
    assert isinstance(source, DiskSource)
    return source


def test_samples_depend_on_the_step_and_not_on_where_training_began(
    from_disk: TrainConfig, data: Path, tmp_path: Path
) -> None:
    geometry = Geometry(crop=(32, 32))
    through, later = (
        _open(from_disk, data, tmp_path),
        _open(from_disk.model_copy(update={"workers": 0}), data, tmp_path),
    )
    drawn = []
    for step in range(3):
        through.fetch(step)
        drawn.append(through.draw(geometry)[0].clone())
    later.fetch(2)

    assert torch.equal(later.draw(geometry)[0], drawn[2])
    assert not torch.equal(drawn[1], drawn[2])
    assert drawn[0].shape == (4, 3, 32, 32)


def test_rare_classes_are_drawn_as_often_as_others_and_seen(from_disk: TrainConfig, data: Path, tmp_path: Path) -> None:
    source = _open(from_disk.model_copy(update={"workers": 0}), data, tmp_path)
    geometry = Geometry(crop=(32, 32))
    seen: Counter[int] = Counter()
    for step in range(30):
        source.fetch(step)
        label = source.draw(geometry)[1].label
        seen.update(int(ids) for crop in label for ids in crop.unique() if (crop == ids).sum() > 100)
    dataset = PackedDataset(data / "cityscapes256/train", load_config("cityscapes256"))
    shown = np.flatnonzero((label_pixels(dataset, range(3), None) > 200).any(0))
    # 120 crops for 15 or so classes: each is the wanted one about 8 times, and then seen nearly always
    assert all(seen[label] >= 3 for label in shown.tolist())


def test_counts_of_pixels_are_kept_for_the_same_pictures(data: Path, tmp_path: Path) -> None:
    dataset = PackedDataset(data / "cityscapes256/train", load_config("cityscapes256"))
    cache = tmp_path / "pixels.npz"
    counts = label_pixels(dataset, [0, 2], cache)
    assert counts.sum() == 2 * 64 * 64
    written = cache.stat().st_mtime_ns
    assert np.array_equal(label_pixels(dataset, [0, 2], cache), counts)
    assert cache.stat().st_mtime_ns == written
    assert len(label_pixels(dataset, [0, 1, 2], cache)) == 3


def test_size_of_the_set_chooses_where_it_lives(
    recipe: TrainConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe.sources[0]
    assert isinstance(open_source(small, recipe, data, CPU, number=0, cache=tmp_path), Source)
    monkeypatch.setattr("mfuser_ros.training.sources.DEVICE_BYTES", 4 * 3 * 64 * 64 - 1)  # of three pictures
    assert isinstance(open_source(small, recipe, data, CPU, number=0, cache=tmp_path), DiskSource)


def test_damaged_file_is_named_from_another_process(from_disk: TrainConfig, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "cityscapes256", tmp_path / "cityscapes256")
    source = _open(from_disk, tmp_path, tmp_path)
    for picture in (tmp_path / "cityscapes256" / "train" / "photo").iterdir():
        picture.write_bytes(b"x" * picture.stat().st_size)
    with pytest.raises(DatasetError, match=r"s\d_1\.jpg: does not decode") as caught:
        source.fetch(0)
    assert "\n" not in str(caught.value)


def test_pictures_that_show_too_little_are_an_error(from_disk: TrainConfig, data: Path, tmp_path: Path) -> None:
    content = from_disk.model_dump()
    content["sources"][0]["rare_classes"]["picture_pixels"] = 10**6
    with pytest.raises(ConfigurationError, match="picture_pixels 1000000: no picture"):
        _open(TrainConfig.model_validate(content), data, tmp_path)
