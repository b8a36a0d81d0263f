"""What `mfuser bag` makes bags of: videos, folders of pictures, data sets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mfuser_ros.errors import DatasetError, InputError

if TYPE_CHECKING:
    from mfuser_ros.bags import CameraCalibration, Shot
    from mfuser_ros.datasets.opening import Dataset

PICTURES_PER_S = 10.0
"""Rate of pictures where none is given."""


class Opened(NamedTuple):
    """A source."""

    rate_hz: float  # pictures per second; 0 where the source does not say
    shots: Iterator[Shot]
    scheme: str | None  # JSON: what the ids of labels mean


def open_source(source: str, data: Path | None, labels: Path | None, scheme: str | None) -> Opened:
    """Open a video, a folder of pictures, a data set as published, or SET/SPLIT below `data`.

    Args:
        source: as it was given.
        data: folder of data sets; None: `source` is a path.
        labels: folder of label PNGs with the names of the pictures in the folder `source`.
        scheme: what the ids of `labels` mean: name of a data set, or a YAML file; None: the vocabulary's ids.

    Raises:
        InputError: nothing is there, a picture does not decode, or a label is missing; the text names it.
        DatasetError: a data set is not known or not whole.
    """
    from mfuser_ros.bags import Shot  # noqa: PLC0415  heavy imports only where a verb needs them
    from mfuser_ros.datasets import video  # noqa: PLC0415

    path = Path(source)
    if data is None and path.is_dir():
        found = None if labels is not None else _recognised(path)
        if found is None:
            return _folder(path, labels, scheme)
        return _dataset(found)
    if labels is not None:
        raise InputError(f"--labels {labels}: belongs to a folder of pictures, {source} is none")
    if data is not None:
        from mfuser_ros.datasets.config import load_config  # noqa: PLC0415
        from mfuser_ros.datasets.opening import open_split  # noqa: PLC0415

        name, _, split = source.rpartition("/")
        return _dataset(open_split(load_config(name or source), split, data))
    return Opened(video.info(path).rate_hz, (Shot(frame.picture) for frame in video.frames(path)), None)


def with_view(shots: Iterator[Shot], horizontal_view_deg: float) -> tuple[Iterator[Shot], CameraCalibration]:
    """The same shots, and the intrinsics of a pinhole camera for the size of the first.

    Raises:
        InputError: there is no shot.
        CalibrationError: the angle is not between 0 and 180 degrees.
    """
    from mfuser_ros.bags.calibration import pinhole  # noqa: PLC0415

    first = next(shots, None)
    if first is None:
        raise InputError("no pictures to write: widen --start and --stop or give another input")
    height, width = first.picture.shape[:2]
    return chain([first], shots), pinhole(width, height, horizontal_view_deg)


def _recognised(folder: Path) -> Dataset | None:
    """The data set that a folder holds, if it is one."""
    from mfuser_ros.datasets.opening import open_split, recognise  # noqa: PLC0415

    try:
        place = recognise(folder)
    except DatasetError:  # an ordinary folder
        return None
    return open_split(place.config, place.split, place.data)


def _dataset(dataset: Dataset) -> Opened:
    from mfuser_ros.bags import Shot  # noqa: PLC0415
    from mfuser_ros.evaluation.bag.scheme import of_dataset  # noqa: PLC0415

    def shots() -> Iterator[Shot]:
        for index, sample in enumerate(dataset):
            file = dataset.photo(index)
            lossless = file.startswith((b"\x89PNG", b"\xff\xd8"))
            yield Shot(sample.picture, file if lossless else None, sample.label)

    return Opened(PICTURES_PER_S, shots(), of_dataset(dataset.config).model_dump_json())


def _folder(folder: Path, labels: Path | None, scheme: str | None) -> Opened:
    from mfuser_ros import vocabulary  # noqa: PLC0415
    from mfuser_ros.bags import Shot  # noqa: PLC0415
    from mfuser_ros.datasets import decode, pictures  # noqa: PLC0415

    files = pictures.find_pictures(folder)
    if labels is None:
        return Opened(PICTURES_PER_S, (Shot(pictures.read_picture(file)) for file in files), None)
    from mfuser_ros.evaluation.bag.scheme import load_scheme, own_scheme  # noqa: PLC0415

    meant = own_scheme(vocabulary.load()) if scheme is None else load_scheme(scheme)

    def shots() -> Iterator[Shot]:
        for file in files:
            label = (labels / file.relative_to(folder)).with_suffix(".png")
            if not label.is_file():
                raise InputError(f"{label}: missing, the label of {file}: give a folder with one for each picture")
            yield Shot(pictures.read_picture(file), None, decode.index(label.read_bytes(), str(label)))

    return Opened(PICTURES_PER_S, shots(), meant.model_dump_json())
