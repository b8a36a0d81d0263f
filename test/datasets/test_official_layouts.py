"""Every official layout as a small tree: what is read, and how a broken file is named."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from trees import SIZE, colours, grey, palette, photo, red16, row

from mfuser_ros.datasets.config import DatasetConfig, load_config
from mfuser_ros.datasets.files import FileDataset
from mfuser_ros.datasets.opening import open_split, recognise
from mfuser_ros.errors import DatasetError

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"


def _config(name: str) -> DatasetConfig:
    return load_config(CONFIGS / f"{name}.yaml")


def _open(name: str, split: str, data: Path) -> FileDataset:
    dataset = open_split(_config(name), split, data)
    assert isinstance(dataset, FileDataset)
    return dataset


def _first_row(dataset: FileDataset, count: int, index: int = 0) -> list[int]:
    return dataset[index].label[0, :count].tolist()


def test_gta5_reads_the_index_and_leaves_out_the_known_misfits(tmp_path: Path):
    dataset = _open("gta5", "train", trees.gta5(tmp_path))
    assert dataset.stems == ["00001", "00002"]  # 15188 and 17705 differ in size
    assert len(dataset) == 2
    sample = dataset[0]
    assert sample.picture.shape == (*SIZE, 3)
    assert sample.picture.dtype == sample.label.dtype == np.uint8
    assert sample.picture[4, 6].tolist() == [200, 0, 0]  # RGB
    assert sample.label[0, :7].tolist() == [0, 1, 2, 18, 255, 255, 13]  # of 7 8 11 33 34 0 26
    assert sample.stem == "00001"


def test_gta5_prefers_the_files_of_the_published_recipe(tmp_path: Path):
    data = trees.gta5(tmp_path)
    for stem in ("00001", "00002", "15188", "17705"):
        grey(data / "gta5" / "labels" / f"{stem}_labelTrainIds.png", row(4, 18, 255))
    assert _first_row(_open("gta5", "train", data), 3) == [4, 18, 255]


def test_other_gta5_picture_of_the_wrong_size_is_named(tmp_path: Path):
    data = trees.gta5(tmp_path)
    palette(data / "gta5" / "labels" / "00002.png", np.zeros((8, 10), np.uint8))
    dataset = _open("gta5", "train", data)
    assert dataset[0].stem == "00001"
    with pytest.raises(DatasetError, match=r"00002\.png: has size 10x8, its picture 12x8: .*leave_out"):
        dataset[1]


def test_synthia_reads_the_red_channel_of_16_bit_pictures(tmp_path: Path):
    dataset = _open("synthia", "train", trees.synthia(tmp_path))  # --data is the set's own folder
    assert _first_row(dataset, 7) == [0, 1, 255, 255, 6, 18, 17]  # of 3 4 22 0 15 11 12
    assert (dataset[0].label[1:] == 0).all()
    assert open_split(_config("synthia"), "train", tmp_path).stems == ["0000000"]  # or the folder above


def test_synthia_label_of_8_bit_or_with_an_instance_in_red_is_named(tmp_path: Path):
    root = trees.synthia(tmp_path)
    label = root / "GT" / "LABELS" / "0000000.png"
    colours(label, np.zeros((*SIZE, 3)))
    with pytest.raises(DatasetError, match=r"0000000\.png: is uint8 .* not a 16-bit"):
        _open("synthia", "train", root)[0]
    red16(label, np.full(SIZE, 4711, np.uint16))
    with pytest.raises(DatasetError, match=r"0000000\.png: holds id 4711"):
        _open("synthia", "train", root)[0]
    red16(label, np.full(SIZE, 23, np.uint16))
    with pytest.raises(DatasetError, match=r"0000000\.png: holds id 23, synthia has 0 to 22, 255"):
        _open("synthia", "train", root)[0]


def test_cityscapes_label_ids_become_train_ids(tmp_path: Path):
    dataset = _open("cityscapes", "val", trees.cityscapes(tmp_path))
    assert dataset.stems == ["frankfurt/frankfurt_000000_000019", "munster/munster_000000_000019"]
    assert _first_row(dataset, 5) == [0, 255, 11, 18, 255]  # of 7 0 24 33 255
    assert dataset.config.sequence_of(dataset.stems[0]) == "frankfurt"


def test_cityscapes_train_ids_are_taken_where_they_are(tmp_path: Path):
    data = trees.cityscapes(tmp_path)
    folder = data / "cityscapes" / "gtFine" / "val"
    for city in ("munster", "frankfurt"):
        grey(folder / city / f"{city}_000000_000019_gtFine_labelTrainIds.png", row(5, 18, 255))
    assert _first_row(_open("cityscapes", "val", data), 3) == [5, 18, 255]
    assert _first_row(_open("cityscapes", "train", data), 3) == [0, 255, 11]  # that split has label ids only


def test_train_ids_that_are_not_complete_are_named(tmp_path: Path):
    data = trees.cityscapes(tmp_path)
    name = "munster_000000_000019_gtFine_labelTrainIds.png"
    grey(data / "cityscapes" / "gtFine" / "val" / "munster" / name, row(5))
    with pytest.raises(DatasetError, match=r"frankfurt_000000_000019_leftImg8bit\.png: its label .*labelTrainIds"):
        _open("cityscapes", "val", data)


def test_bdd100k_reads_masks_and_not_colour_maps(tmp_path: Path):
    data = trees.bdd100k(tmp_path)
    dataset = _open("bdd100k", "val", data)
    assert dataset.stems == ["7d06fefd-f7be05a6"]
    assert _first_row(dataset, 3) == [0, 18, 255]
    colours(data / "bdd100k/labels/sem_seg/masks/val/7d06fefd-f7be05a6.png", np.zeros((*SIZE, 3)))
    with pytest.raises(DatasetError, match=r"is a colour map \(RGB\), not ids: take labels/sem_seg/masks .*colormaps"):
        _open("bdd100k", "val", data)[0]


def test_bdd100k_without_masks_is_told_where_they_belong(tmp_path: Path):
    data = trees.bdd100k(tmp_path)
    (data / "bdd100k/labels/sem_seg/masks/val/7d06fefd-f7be05a6.png").unlink()
    with pytest.raises(DatasetError, match="no label files labels/sem_seg/masks/val"):
        _open("bdd100k", "val", data)


def test_mapillary_ids_follow_the_class_list_of_the_version(tmp_path: Path):
    data = trees.mapillary(tmp_path)
    assert _first_row(_open("mapillary", "val", data), 3) == [0, 255, 6]  # marking, bird, light
    assert _first_row(_open("mapillary_v2", "val", data), 3) == [0, 255, 6]
    old = data / "mapillary" / "validation" / "labels" / "_abc.png"  # release 1.x
    palette(old, row(0, 1))
    trees.vistas(data / "mapillary" / "config.json", ("Sky", "Curb Cut"))
    assert _first_row(_open("mapillary", "val", data), 2) == [10, 1]


def test_mapillary_id_beyond_its_list_and_missing_list_are_named(tmp_path: Path):
    data = trees.mapillary(tmp_path)
    palette(data / "mapillary/validation/v1.2/labels/_abc.png", row(3))
    with pytest.raises(DatasetError, match=r"_abc\.png: holds id 3, mapillary has 0 to 2, 255"):
        _open("mapillary", "val", data)[0]
    (data / "mapillary" / "config_v1.2.json").unlink()
    with pytest.raises(DatasetError, match=r"config_v1\.2\.json: cannot be read"):
        _open("mapillary", "val", data)


def test_acdc_conditions_can_be_taken_together_or_alone(tmp_path: Path):
    data = trees.acdc(tmp_path)
    every = _open("acdc", "val", data)
    assert every.stems == [
        "fog/GOPR0000/GOPR0000_frame_000247", "night/GOPR0001/GOPR0001_frame_000247",
        "rain/GOPR0002/GOPR0002_frame_000247", "snow/GOPR0003/GOPR0003_frame_000247",
    ]  # fmt: skip
    assert [sample.label[0, 0] for sample in every] == [0, 1, 2, 3]
    for train_id, condition in enumerate(("fog", "night", "rain", "snow")):
        alone = _open("acdc", f"val_{condition}", data)
        assert alone.stems == [f"GOPR000{train_id}/GOPR000{train_id}_frame_000247"]
        assert alone[0].label[0, 0] == train_id
    assert every.config.sequence_of(every.stems[1]) == alone.config.sequence_of("GOPR0001/x") == "GOPR0001"


def test_camvid_with_11_classes_and_its_void(tmp_path: Path):
    photo(tmp_path / "CamVid" / "test" / "0001TP_008550.png")
    grey(tmp_path / "CamVid" / "testannot" / "0001TP_008550.png", row(*range(12)))
    dataset = _open("camvid11", "test", tmp_path)
    assert _first_row(dataset, 12) == [*range(11), 255]
    assert dataset.config.sequence_of(dataset.stems[0]) == "0001TP"


def test_camvid_in_the_colours_of_cambridge(tmp_path: Path):
    rgb = np.zeros((*SIZE, 3), np.uint8)
    rgb[0, :4] = [
        (128, 128, 128),
        (0, 128, 192),
        (64, 128, 64),
        (192, 0, 64),
    ]  # Sky, Bicyclist, Animal, LaneMkgsNonDriv
    for stem in ("0001TP_006690", "0016E5_00390"):
        photo(tmp_path / "CamVid" / "701_StillsRaw_full" / f"{stem}.png")
        colours(tmp_path / "CamVid" / "LabeledApproved_full" / f"{stem}_L.png", rgb)
    assert _first_row(_open("camvid_raw", "all", tmp_path), 5, 1) == [0, 10, 9, 3, 255]
    assert _open("camvid_raw", "dusk", tmp_path).stems == ["006690"]
    rgb[3, 3] = (1, 2, 3)
    colours(tmp_path / "CamVid" / "LabeledApproved_full" / "0001TP_006690_L.png", rgb)
    with pytest.raises(DatasetError, match=r"0001TP_006690_L\.png: holds the colour \(1, 2, 3\)"):
        _open("camvid_raw", "all", tmp_path)[0]


def test_idd_lite_reads_labels_and_not_instances(tmp_path: Path):
    root = tmp_path / "idd20k_lite"
    photo(root / "leftImg8bit" / "val" / "119" / "903127_image.jpg")
    grey(root / "gtFine" / "val" / "119" / "903127_label.png", row(*range(7), 255))
    grey(root / "gtFine" / "val" / "119" / "903127_inst_label.png", row(40))
    dataset = _open("idd_lite_raw", "val", tmp_path)
    assert dataset.stems == ["119/903127"]
    assert _first_row(dataset, 8) == [*range(7), 255]
    grey(root / "gtFine" / "val" / "119" / "903127_label.png", row(7))
    with pytest.raises(DatasetError, match=r"903127_label\.png: holds id 7, idd_lite_raw has 0 to 6, 255"):
        dataset[0]


def test_missing_partners_are_named_first_in_order(tmp_path: Path):
    root = trees.cityscapes(tmp_path) / "cityscapes"
    (root / "gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DatasetError, match=r"019_leftImg8bit\.png: its label .*labelIds\.png is missing"):
        _open("cityscapes", "val", tmp_path)
    (root / "leftImg8bit/val/frankfurt/frankfurt_000000_000019_leftImg8bit.png").unlink()
    (root / "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png").unlink()
    photo(root / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png")
    grey(root / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png", row(7))
    with pytest.raises(DatasetError, match=r"munster_000000_000019_gtFine_labelIds\.png: its picture .* is missing"):
        _open("cityscapes", "val", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "does not decode"),
        (lambda content: b"\x89PNG\r\n\x1a\n no picture IEND", "does not decode"),
        (lambda content: content[:-20], "is cut off"),
        (lambda content: content[:40] + b"\0\0\0\0\0\0\0\0" + content[48:], "does not decode"),
    ],
)
@pytest.mark.parametrize("kind", ["picture", "label"])
def test_unreadable_png_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], message: str, kind: str):
    root = trees.cityscapes(tmp_path) / "cityscapes"
    name = {"picture": "leftImg8bit/{}_leftImg8bit.png", "label": "gtFine/{}_gtFine_labelIds.png"}[kind]
    file = root / name.format("val/munster/munster_000000_000019")
    file.write_bytes(damage(file.read_bytes()))
    dataset = _open("cityscapes", "val", tmp_path)
    assert dataset[0].stem.startswith("frankfurt")
    with pytest.raises(DatasetError, match=rf"{file.name}: {message}"):
        dataset[1]


def test_cut_off_jpeg_is_named(tmp_path: Path):
    data = trees.bdd100k(tmp_path)
    file = data / "bdd100k/images/10k/val/7d06fefd-f7be05a6.jpg"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(DatasetError, match=r"7d06fefd-f7be05a6\.jpg: is cut off after \d+ bytes"):
        _open("bdd100k", "val", data)[0]


def test_label_with_16_bit_ids_is_refused(tmp_path: Path):
    root = trees.cityscapes(tmp_path) / "cityscapes"
    grey(root / "gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png", np.zeros(SIZE, np.uint16))
    with pytest.raises(DatasetError, match="is no 8-bit picture of ids but I;16"):
        _open("cityscapes", "val", tmp_path)[0]


def test_set_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"gta5/train: no images/\*\.png under .*gta5.*gta, .*check --data"):
        _open("gta5", "train", tmp_path)
    with pytest.raises(DatasetError, match="no split 'dawn': choose one of train, val"):
        _open("cityscapes", "dawn", tmp_path)


def test_dataset_pickles_for_workers(tmp_path: Path):
    dataset = _open("cityscapes", "val", trees.cityscapes(tmp_path))
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == 2
    np.testing.assert_array_equal(copy[1].label, dataset[1].label)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of this checkout, however the package is installed."""
    prefix = tmp_path / "prefix" / "share"
    prefix.mkdir(parents=True)
    (prefix / "mfuser_ros").symlink_to(CONFIGS.parents[1])
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix.parent))


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [
        ("gta5", "gta5", "train"),
        ("synthia", "RAND_CITYSCAPES", "train"),
        ("cityscapes", "cityscapes", "val"),
        ("bdd100k", "bdd100k", "val"),
        ("acdc", "acdc", "val"),
    ],
)
def test_layout_of_a_folder_is_recognised(tmp_path: Path, name: str, folder: str, split: str):
    getattr(trees, name)(tmp_path)
    place = recognise(tmp_path / folder)
    assert (place.config.name, place.split, place.data) == (name, split, tmp_path / folder)
    assert len(open_split(place.config, place.split, place.data)) >= 1


@pytest.mark.usefixtures("shipped")
def test_folder_of_a_packed_split_is_recognised(tmp_path: Path):
    folder = tmp_path / "camvid" / "dusk"
    photo(folder / "photo" / "a_1.jpg")
    grey(folder / "label" / "a_1.png", row(3))
    place = recognise(folder)
    assert (place.config.name, place.split, place.data) == ("camvid", "dusk", tmp_path)
    with tarfile.open(tmp_path / "camvid" / "day.tar", "w") as tar:
        for kind in ("photo", "label"):
            tar.add(folder / kind, arcname=kind)
    place = recognise(tmp_path / "camvid" / "day.tar")
    assert (place.config.name, place.split) == ("camvid", "day")
    assert open_split(place.config, place.split, place.data).stems == ["a_1"]


@pytest.mark.usefixtures("shipped")
def test_folder_that_fits_no_or_several_layouts_asks_for_a_name(tmp_path: Path):
    with pytest.raises(DatasetError, match="no layout of a known set: give SET/SPLIT with --data"):
        recognise(tmp_path)
    data = trees.mapillary(tmp_path)
    with pytest.raises(DatasetError, match="fits several layouts: give one of mapillary/val, mapillary_v2/val"):
        recognise(data / "mapillary")


@pytest.mark.usefixtures("shipped")
def test_folder_with_several_splits_and_no_val_asks_which(tmp_path: Path):
    for stem in ("0001TP_006690", "0016E5_00390"):
        photo(tmp_path / "raw" / "701_StillsRaw_full" / f"{stem}.png")
        colours(tmp_path / "raw" / "LabeledApproved_full" / f"{stem}_L.png", np.zeros((*SIZE, 3)))
    with pytest.raises(DatasetError, match=r"which split.*camvid_raw/all, camvid_raw/dusk"):
        recognise(tmp_path / "raw")
