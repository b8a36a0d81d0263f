"""Reader of sets that lie as their authors publish them: GTA5, SYNTHIA, Cityscapes, BDD100K, Mapillary, ACDC, ..."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mfuser_ros.datasets import decode, label_ids
from mfuser_ros.datasets.config import DatasetConfig, FileLayout, LabelFiles
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.vocabulary import UNKNOWN

Stem = tuple[str, ...]  # what a path has in place of a pattern's asterisks


class FileDataset(Sequence[Sample]):
    """Pictures and labels of one split, in the order of their paths; decoded when asked for.

    A stem is what a path has in place of the pattern's asterisks, such as ``aachen/aachen_000000_000019``. The object
    holds paths and one small table, so it pickles and several processes may read at once.
    """

    def __init__(self, root: Path, config: DatasetConfig, split: str) -> None:
        """List the pairs of a split under the set's own folder.

        Raises:
            DatasetError: there is no such split, a picture or label has no partner (the text names the first one), or
                nothing is there.
        """
        if config.files is None:
            raise DatasetError(f"{config.name}: is a packed set: open it as one")
        self.config = config
        self.root = root
        fill = config.split(split)
        pictures = _found(root, config.files.pictures, fill)
        if not pictures:
            pattern = root / _filled(config.files.pictures, fill)
            raise DatasetError(f"{pattern}: no picture of {config.name}/{split} is there: check --data")
        self._kind, labels = _labels(root, config.files, fill)
        for stem in sorted(set(pictures) - set(labels)):
            expected = _place(self._kind.path, fill, stem, root)
            raise DatasetError(f"{pictures[stem]}: its label {expected} is missing: copy the set again")
        for stem in sorted(set(labels) - set(pictures)):
            expected = _place(config.files.pictures, fill, stem, root)
            raise DatasetError(f"{labels[stem]}: its picture {expected} is missing: copy the set again")
        self.stems = ["/".join(stem) for stem in sorted(pictures) if "/".join(stem) not in config.files.leave_out]
        self._pairs = {"/".join(stem): (pictures[stem], labels[stem]) for stem in pictures}
        self._table = None if self._kind.colours else label_ids.lookup(_ids(self._kind, config, root))

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # slices are of no use here
        """Decode one pair.

        Raises:
            DatasetError: a file is cut off or does not decode, sizes differ, a label holds colours where ids belong, or
                an id that the set does not have; the text names the file.
        """
        stem = self.stems[index]
        picture_file, label_file = self._pairs[stem]
        picture = decode.picture(_read(picture_file), str(picture_file))
        label = self._label(label_file)
        if label.shape != picture.shape[:2]:
            raise DatasetError(
                f"{label_file}: has size {label.shape[1]}x{label.shape[0]}, its picture "
                f"{picture.shape[1]}x{picture.shape[0]}: copy both again, or name {stem} under leave_out"
            )
        return Sample(picture, label, stem)

    def photo(self, index: int) -> bytes:
        """The file of a picture as it lies; raises DatasetError where it cannot be read."""
        return _read(self._pairs[self.stems[index]][0])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _label(self, file: Path) -> np.ndarray:
        """(H, W) uint8 label ids of the set, 255 not labelled."""
        content, name = _read(file), str(file)
        if self._table is None:
            return _from_colours(decode.colours(content, name), self._kind, name)
        if self._kind.channel == "red16":
            wide = decode.red16(content, name, hint=self._kind.hint)
            if wide.max(initial=0) > UNKNOWN:
                found = f"holds id {wide.max()}, which {self.config.name} does not have"
                raise DatasetError(f"{name}: {found}: {self._kind.hint or 'copy the set again'}")
            ids = wide.astype(np.uint8)
        else:
            ids = decode.index(content, name, hint=self._kind.hint)
        label = self._table[ids]
        strange = label == label_ids.STRANGE
        if strange.any():
            known = np.flatnonzero(self._table != label_ids.STRANGE).tolist()
            raise DatasetError(
                f"{name}: holds id {ids[strange].min()}, {self.config.name} has {_ranges(known)}: "
                f"{self._kind.hint or 'check that these are its label files'}"
            )
        return label


def find_root(config: DatasetConfig, data: Path, split: str) -> Path:
    """The set's own folder: one of its usual names under `data`, or `data` itself.

    Raises:
        DatasetError: neither holds a picture of the split.
    """
    assert config.files is not None
    places = [data / folder for folder in config.files.folders] + [data]
    for place in places:
        if _holds(place, config.files.pictures, config.split(split)):
            return place
    pattern = _filled(config.files.pictures, config.split(split))
    names = ", ".join(str(place) for place in places)
    raise DatasetError(f"{config.name}/{split}: no {pattern} under {names}: check --data")


def present_splits(config: DatasetConfig, root: Path) -> list[str]:
    """Splits of which pictures and labels lie under `root` as the set's layout says."""
    layout = config.files
    if layout is None:
        return []
    return [
        split
        for split, fill in config.splits.items()
        if _holds(root, layout.pictures, fill) and any(_holds(root, files.path, fill) for files in layout.labels)
    ]


def _labels(root: Path, layout: FileLayout, fill: str) -> tuple[LabelFiles, dict[Stem, Path]]:
    for kind in layout.labels:
        found = _found(root, kind.path, fill)
        for pattern in layout.beside:
            others = set(_found(root, pattern, fill).values())
            found = {stem: path for stem, path in found.items() if path not in others}
        if found:
            return kind, found
    wanted = " or ".join(_filled(kind.path, fill) for kind in layout.labels)
    hint = next((kind.hint for kind in layout.labels if kind.hint), "check --data")
    raise DatasetError(f"{root}: no label files {wanted}: {hint}")


def _ids(kind: LabelFiles, config: DatasetConfig, root: Path) -> dict[int, int]:
    if isinstance(kind.ids, dict):
        return kind.ids
    if kind.ids == "cityscapes":
        return dict(label_ids.CITYSCAPES)
    if kind.ids == "synthia":
        return dict(label_ids.SYNTHIA)
    if kind.ids == "mapillary":
        return label_ids.mapillary(root / str(kind.classes))
    return label_ids.same([label.id for label in config.labels])


def _from_colours(rgb: np.ndarray, kind: LabelFiles, name: str) -> np.ndarray:
    found, places = np.unique(rgb, return_inverse=True)
    table = {r << 16 | g << 8 | b: entry.id for entry in kind.colours for r, g, b in (entry.rgb,)}
    for value in found.tolist():
        if value not in table:
            colour = f"{value >> 16}, {value >> 8 & 255}, {value & 255}"
            raise DatasetError(
                f"{name}: holds the colour ({colour}), which no class has: {kind.hint or 'copy it again'}"
            )
    ids = np.array([table[value] for value in found.tolist()], np.uint8)
    return np.asarray(ids[places].reshape(rgb.shape))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror}): copy the set again") from error


def _filled(pattern: str, fill: str) -> str:
    return pattern.replace("{split}", fill)


def _found(root: Path, pattern: str, fill: str) -> dict[Stem, Path]:
    filled = _filled(pattern, fill)
    expression = re.compile(re.escape(filled).replace(r"\*", "([^/]+)"))
    found: dict[Stem, Path] = {}
    for path in root.glob(filled):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match:
            found[match.groups()] = path
    return found


def _holds(root: Path, pattern: str, fill: str) -> bool:
    return next(iter(root.glob(_filled(pattern, fill))), None) is not None


def _place(pattern: str, fill: str, stem: Stem, root: Path) -> Path:
    parts = iter(stem)
    return root / re.sub(r"\*", lambda _: next(parts), _filled(pattern, fill))


def _ranges(ids: list[int]) -> str:
    """Sorted ids as text, neighbours joined: 0 to 18, 255."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
