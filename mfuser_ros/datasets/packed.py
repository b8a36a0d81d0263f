"""Reader of packed sets: NAME.tar, or a folder NAME, with photo/STEM.jpg and label/STEM.png."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from mfuser_ros.datasets import decode
from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.vocabulary import UNKNOWN


class _Entry(NamedTuple):
    file: Path
    offset: int  # of the content in the file
    size: int
    name: str  # for messages


class PackedDataset(Sequence[Sample]):
    """Pictures and labels of one split, in the order of their names; decoded when asked for.

    Reading opens the file anew, so several threads may read at once.
    """

    def __init__(self, path: Path, config: DatasetConfig) -> None:
        """List the pairs of `path` (with or without .tar).

        Raises:
            DatasetError: nothing is there, or a photo or label has no partner; the text names the first one.
        """
        self.config = config
        tar = path if path.suffix == ".tar" else path.with_name(path.name + ".tar")
        if path.is_dir():
            self.path, entries = path, _folder_entries(path)
        elif tar.is_file():
            self.path, entries = tar, _tar_entries(tar)
        else:
            raise DatasetError(f"{path}: neither {tar.name} nor a folder of that name is there: check --data")
        photos = {stem: entry for (kind, stem), entry in entries.items() if kind == "photo"}
        labels = {stem: entry for (kind, stem), entry in entries.items() if kind == "label"}
        for stem in sorted(photos.keys() ^ labels.keys()):
            kind, other = ("photo", "label") if stem in photos else ("label", "photo")
            raise DatasetError(f"{self.path}: {kind} {stem} has no {other}: pack the set again")
        if not photos:
            raise DatasetError(f"{self.path}: holds no photo/STEM.jpg with label/STEM.png: is it a packed set?")
        self.stems = sorted(photos)
        self._photos, self._labels = photos, labels

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # slices are of no use here
        """Decode one pair.

        Raises:
            DatasetError: a file does not decode, sizes differ, or an id is not in the label table.
        """
        stem = self.stems[index]
        photo, entry = self._photos[stem], self._labels[stem]
        picture = decode.picture(_read(photo), photo.name)
        label, name = decode.index(_read(entry), entry.name), entry.name
        if label.shape != picture.shape[:2]:
            raise DatasetError(f"{name}: has size {label.shape}, its photo {picture.shape[:2]}: pack the set again")
        known = {entry.id for entry in self.config.labels} | {UNKNOWN}
        wrong = set(np.unique(label).tolist()) - known
        if wrong:
            raise DatasetError(f"{name}: holds id {min(wrong)}, {self.config.name} has {sorted(known)}")
        return Sample(picture, label, stem)

    def photo(self, index: int) -> bytes:
        """The file of a picture as it lies; raises DatasetError where it cannot be read."""
        return _read(self._photos[self.stems[index]])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _tar_entries(path: Path) -> dict[tuple[str, str], _Entry]:
    entries = {}
    try:
        with tarfile.open(path, "r:") as tar:  # plain tar only: content must lie at an offset
            for member in tar.getmembers():
                name = PurePosixPath(member.name)
                if member.isfile():
                    entry = _Entry(path, member.offset_data, member.size, f"{path}: {member.name}")
                    entries[name.parent.name, name.stem] = entry
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(f"{path}: is no readable tar ({error}): copy it again") from error
    return entries


def _folder_entries(path: Path) -> dict[tuple[str, str], _Entry]:
    files = (file for kind in ("photo", "label") for file in (path / kind).glob("*.*"))
    return {(file.parent.name, file.stem): _Entry(file, 0, file.stat().st_size, str(file)) for file in files}


def _read(entry: _Entry) -> bytes:
    try:
        with entry.file.open("rb") as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
    except OSError as error:
        raise DatasetError(f"{entry.name}: cannot be read ({error.strerror}): copy the set again") from error
    return content if len(content) == entry.size else b""  # a tar that was cut off meanwhile
