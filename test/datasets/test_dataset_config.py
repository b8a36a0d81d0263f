"""The shipped data sets, and what a wrong description says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mfuser_ros.datasets.config import DatasetConfig, load_config
from mfuser_ros.errors import DatasetError
from mfuser_ros.vocabulary import load

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"


def _shipped(name: str) -> DatasetConfig:
    return load_config(CONFIGS / f"{name}.yaml")


def test_every_shipped_set_loads() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert names == [
        "acdc", "bdd100k", "camvid", "camvid11", "camvid_raw", "cityscapes", "cityscapes256", "gta5", "idd_lite",
        "idd_lite_raw", "labelme_facade", "mapillary", "mapillary_v2", "synthetic", "synthia",
    ]  # fmt: skip
    assert all(_shipped(name).name == name for name in names)


def test_fine_labels_are_the_vocabulary() -> None:
    assert (
        tuple(label.name for label in _shipped("cityscapes256").labels)
        == load(CONFIGS.parent / "vocabulary.yaml").names
    )


@pytest.mark.parametrize(
    ("name", "of_19"),  # the group of each train id as the data's own table states it
    [
        ("camvid", [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]),
        ("idd_lite", [0, 1, 5, 4, 4, 4, 4, 4, 5, 1, 6, 2, 2, 3, 3, 3, 3, 3, 3]),
    ],
)
def test_groups_follow_the_table(name: str, of_19: list[int]) -> None:
    config = _shipped(name)
    assert config.is_partition
    assert config.membership().argmax(0).tolist() == of_19
    assert config.membership().sum(0).tolist() == [1] * 19


def test_labels_that_hide_small_things_are_no_partition() -> None:
    config = _shipped("labelme_facade")
    assert not config.is_partition
    assert not config.presence
    rows = config.membership()
    assert np.flatnonzero(rows[1]).tolist() == [1, 5, 6, 7, 11, 12, 17, 18]  # a walker may carry "sidewalk"
    assert not rows[3].any()


def test_sequence_is_read_from_the_stem() -> None:
    assert _shipped("camvid").sequence_of("0001TP_006690") == "0001TP"
    assert _shipped("idd_lite").sequence_of("119_903127") == "119"
    assert _shipped("cityscapes256").sequence_of("0001") == "0001"


def test_unknown_split_is_named_with_its_siblings() -> None:
    with pytest.raises(DatasetError, match=r"no split 'night'.*day, dusk"):
        _shipped("camvid").split("night")


def test_labels_may_be_those_of_another_set() -> None:
    assert _shipped("camvid11").labels == _shipped("camvid_raw").labels == _shipped("camvid").labels
    assert _shipped("gta5").labels == _shipped("cityscapes256").labels


def test_colours_are_those_of_the_first_member() -> None:
    fine = load(CONFIGS.parent / "vocabulary.yaml")
    palette = _shipped("idd_lite").palette()
    assert palette[3].tolist() == list(fine[13].colour)  # vehicles: car
    assert palette[255].tolist() == [0, 0, 0]
    assert _shipped("gta5").palette().tolist() == fine.palette().tolist()


@pytest.mark.parametrize(
    ("name", "change", "to"),
    [
        ("gta5", "format: files", "format: packed"),
        ("gta5", "images/*.png", "images/*/*.png"),  # labels with one asterisk
        ("gta5", "ids: cityscapes", "ids: kitti"),
        ("gta5", "ids: cityscapes", "ids: mapillary"),  # without its list of classes
        ("camvid11", "11: 255", "11: 300"),
        ("camvid_raw", "rgb: [0, 0, 0], id: 255", "rgb: [0, 0, 0], id: 256"),
        ("gta5", "labels: fine", "labels: nowhere"),
    ],
)
def test_wrong_layout_is_refused_with_the_file(tmp_path: Path, name: str, change: str, to: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert change in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(change, to, 1), encoding="utf-8")
    with pytest.raises(DatasetError) as error:
        load_config(path)
    assert "wrong.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("members: [10]", "members: [19]"),
        ("members: [10]", "members: [10, 10]"),
        ("id: 1,", "id: 0,"),
        ("format: packed", "format: zip"),
        ("'^([^_]+)_'", "'^[^_]+_'"),
    ],
)
def test_wrong_description_is_refused_with_the_file(tmp_path: Path, change: str, message: str) -> None:
    text = (CONFIGS / "camvid.yaml").read_text(encoding="utf-8")
    assert change in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(change, message, 1), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"wrong\.yaml"):
        load_config(path)


def test_missing_file_and_no_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("name: [", encoding="utf-8")
    with pytest.raises(DatasetError, match="is no YAML"):
        load_config(path)
