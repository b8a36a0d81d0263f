"""Packed sets as a tar and as a folder, whole and broken."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mfuser_ros.datasets.config import DatasetConfig, load_config
from mfuser_ros.datasets.opening import open_split
from mfuser_ros.datasets.packed import PackedDataset
from mfuser_ros.errors import DatasetError

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"


@pytest.fixture
def camvid() -> DatasetConfig:
    return load_config(CONFIGS / "camvid.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data/camvid/dusk with two pairs: red pictures of 8 x 12, labels 0 to 10 and 255."""
    root = tmp_path / "camvid" / "dusk"
    for kind in ("photo", "label"):
        (root / kind).mkdir(parents=True)
    for number, stem in enumerate(("b_2", "a_1")):
        picture = np.zeros((8, 12, 3), np.uint8)
        picture[..., 2] = 200  # OpenCV writes BGR
        cv2.imwrite(str(root / "photo" / f"{stem}.jpg"), picture)
        label = np.full((8, 12), number, np.uint8)
        label[0] = [*range(11), 255]
        cv2.imwrite(str(root / "label" / f"{stem}.png"), label)
    return root


def _pack(folder: Path) -> Path:
    path = folder.with_name(folder.name + ".tar")
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.*")):
            tar.add(file, arcname=str(file.relative_to(folder)))
    for file in sorted(folder.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    folder.rmdir()
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_pairs_come_in_order_of_their_names(folder: Path, camvid: DatasetConfig, packed: bool) -> None:
    if packed:
        _pack(folder)
    dataset = open_split(camvid, "dusk", folder.parents[1])

    samples = list(dataset)

    assert len(dataset) == 2
    assert [sample.stem for sample in samples] == ["a_1", "b_2"]
    first = samples[0]
    assert first.picture.shape == (8, 12, 3)
    assert first.picture[4, 6].tolist() == pytest.approx([200, 0, 0], abs=4)  # RGB
    assert first.label[0].tolist() == [*range(11), 255]
    assert (first.label[1:] == 1).all()


def test_photo_without_label_is_named(folder: Path, camvid: DatasetConfig) -> None:
    (folder / "label" / "b_2.png").unlink()
    with pytest.raises(DatasetError, match="photo b_2 has no label"):
        PackedDataset(folder, camvid)


def test_label_without_photo_is_named(folder: Path, camvid: DatasetConfig) -> None:
    (folder / "photo" / "a_1.jpg").unlink()
    with pytest.raises(DatasetError, match="label a_1 has no photo"):
        PackedDataset(folder, camvid)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((8, 12), 11, np.uint8), "holds id 11"),
        (np.zeros((8, 11), np.uint8), r"size \(8, 11\)"),
        (np.zeros((8, 12, 3), np.uint8), "is a colour map"),
        (np.zeros((8, 12), np.uint16), "no 8-bit picture of ids"),
    ],
)
def test_wrong_label_is_named(folder: Path, camvid: DatasetConfig, label: np.ndarray, message: str) -> None:
    cv2.imwrite(str(folder / "label" / "b_2.png"), label)
    dataset = PackedDataset(folder, camvid)
    assert dataset[0].stem == "a_1"
    with pytest.raises(DatasetError, match=f"b_2.png: .*{message}"):
        dataset[1]


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_file_that_does_not_decode_is_named(folder: Path, camvid: DatasetConfig, content: bytes) -> None:
    (folder / "photo" / "b_2.jpg").write_bytes(content)
    with pytest.raises(DatasetError, match=r"b_2\.jpg: does not decode"):
        PackedDataset(folder, camvid)[1]


def test_cut_off_tar_is_refused(folder: Path, camvid: DatasetConfig) -> None:
    path = _pack(folder)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 100])
    with pytest.raises(DatasetError, match=r"dusk\.tar"):
        list(PackedDataset(path, camvid))


def test_missing_and_empty_sets_are_refused(tmp_path: Path, camvid: DatasetConfig) -> None:
    with pytest.raises(DatasetError, match=r"neither dusk\.tar nor a folder"):
        open_split(camvid, "dusk", tmp_path)
    (tmp_path / "camvid" / "dusk").mkdir(parents=True)
    with pytest.raises(DatasetError, match="is it a packed set"):
        open_split(camvid, "dusk", tmp_path)
