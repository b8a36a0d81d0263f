"""Find and open a split of a data set, packed or as published."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mfuser_ros.datasets.config import DatasetConfig, load_config, shipped
from mfuser_ros.datasets.files import FileDataset, find_root, present_splits
from mfuser_ros.datasets.packed import PackedDataset
from mfuser_ros.errors import DatasetError

Dataset = PackedDataset | FileDataset
"""A sequence of `Sample` with `.stems` and `.config`; it pickles, and several workers may read at once."""


def open_split(config: DatasetConfig, split: str, data: Path) -> Dataset:
    """One split of a set.

    Args:
        config: the set.
        split: one of its splits.
        data: the folder that holds the set; an official release may also be given itself.

    Raises:
        DatasetError: the split is not known or its files are not there or incomplete; the text names the first one.
    """
    if config.format == "packed":
        return PackedDataset(data / config.split(split), config)
    return FileDataset(find_root(config, data, split), config, split)


class Place(NamedTuple):
    """A split of a set and the data folder that it lies under."""

    config: DatasetConfig
    split: str
    data: Path


def recognise(folder: Path) -> Place:
    """Which set and split a folder holds, by its layout.

    The folder is an official release (its split called val, or the only one that is there), or a packed split of one of
    the shipped sets, such as camvid/dusk or camvid/dusk.tar.

    Raises:
        DatasetError: no shipped set lies so, or several do, or the split must be chosen; the text says what to write.
    """
    configs = [load_config(name) for name in shipped()]
    packed = _packed(folder, configs)
    found = [(config, present_splits(config, folder)) for config in configs]
    fitting = [(config, splits) for config, splits in found if splits]
    if len(packed) + len(fitting) != 1:
        if packed or fitting:
            names = ", ".join(f"{config.name}/{splits[0]}" for config, splits in fitting)
            raise DatasetError(f"{folder}: fits several layouts: give one of {names} with --data {folder}")
        raise DatasetError(
            f"{folder}: no layout of a known set: give SET/SPLIT with --data, where SET is one of "
            f"{', '.join(shipped())} or a YAML file of that form"
        )
    if packed:
        return packed[0]
    config, splits = fitting[0]
    if "val" not in splits and len(splits) > 1:
        choices = ", ".join(f"{config.name}/{split}" for split in splits)
        raise DatasetError(f"{folder}: which split? give one of {choices} with --data {folder}")
    return Place(config, "val" if "val" in splits else splits[0], folder)


def _packed(place: Path, configs: list[DatasetConfig]) -> list[Place]:
    """Packed splits whose path ends as `place` does."""
    if not (place / "photo").is_dir() and not (place.is_file() and place.suffix == ".tar"):
        return []
    whole = place.absolute() if place.is_dir() else place.absolute().with_suffix("")
    return [
        Place(config, split, data)
        for config in configs
        if config.format == "packed"
        for split, path in config.splits.items()
        for data in whole.parents
        if data / path == whole
    ]
