"""Labels for the frames of a bag: a topic of label pictures matched by stamp, or a folder of PNGs by stamp or index."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mfuser_ros.bags.recording import Recorded, Recording
from mfuser_ros.datasets import decode
from mfuser_ros.errors import DatasetError, InputError

WINDOW = 64
"""Labels that are kept while the frames catch up: how far the order of both may differ."""

_STAMP_DIGITS = 12  # a number with fewer digits is an index, one with more a stamp in nanoseconds


class Label(NamedTuple):
    """The label of one frame."""

    ids: np.ndarray  # uint8 (H, W), raw
    name: str  # of its source, for messages


class LabelSource(Protocol):
    """Where labels come from."""

    def at(self, index: int, stamp_ns: int, /) -> Label | None:
        """The label of a frame, or None.

        Args:
            index: of the frame on its topic, from 0.
            stamp_ns: of its header; frames come in about the order of their stamps.

        Raises:
            InputError: the label cannot be used; the text names it.
        """


class TopicLabels:
    """Labels on a topic of a recording, each the nearest in time within a tolerance."""

    def __init__(self, recording: Recording, topic: str, tolerance_ns: int) -> None:
        """Prepare; the recording must be one of its own, as it is read at another pace than the frames."""
        self._messages: Iterator[Recorded] = recording.messages([topic])
        self._tolerance_ns = tolerance_ns
        self._near: deque[tuple[int, Recorded]] = deque(maxlen=WINDOW)
        self._read_on = True

    def at(self, _index: int, stamp_ns: int, /) -> Label | None:
        """As `LabelSource.at`."""
        while self._read_on and (not self._near or self._near[-1][0] <= stamp_ns + self._tolerance_ns):
            recorded = next(self._messages, None)
            if recorded is None:
                self._read_on = False
            else:
                self._near.append((stamp_of(recorded.message), recorded))
        fits = [entry for entry in self._near if abs(entry[0] - stamp_ns) <= self._tolerance_ns]
        if not fits:
            return None
        _, recorded = min(fits, key=lambda entry: abs(entry[0] - stamp_ns))
        name = f"{recorded.topic}: label {recorded.index}"
        return Label(_ids_of_message(recorded.message, name), name)


class FolderLabels:
    """PNG files whose names end with the index of a frame, or with its stamp in nanoseconds or seconds."""

    def __init__(self, folder: Path, tolerance_ns: int) -> None:
        """List the folder.

        Raises:
            InputError: no PNG there, a name without a number, or indices mixed with stamps.
        """
        files = sorted(folder.glob("*.png"))
        if not files:
            raise InputError(f"{folder}: no PNG labels in this folder: give another one")
        self._tolerance_ns = tolerance_ns
        self._by_number: dict[int, Path] = {}
        kinds = set()
        for file in files:
            number, is_stamp = _number_in(file)
            kinds.add(is_stamp)
            if number in self._by_number:
                raise InputError(f"{file}: the same number as {self._by_number[number].name}: rename one")
            self._by_number[number] = file
        if len(kinds) > 1:
            raise InputError(f"{folder}: some names end with indices, some with stamps: give one kind")
        self._stamps = np.array(sorted(self._by_number), np.int64) if kinds == {True} else None

    def at(self, index: int, stamp_ns: int, /) -> Label | None:
        """As `LabelSource.at`."""
        if self._stamps is None:
            file = self._by_number.get(index)
        else:
            nearest = int(self._stamps[np.abs(self._stamps - stamp_ns).argmin()])
            file = self._by_number[nearest] if abs(nearest - stamp_ns) <= self._tolerance_ns else None
        if file is None:
            return None
        try:
            return Label(_ids_of_png(file.read_bytes(), str(file)), str(file))
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}): check the labels") from error


def stamp_of(message: Any) -> int:  # Any: rosbags' classes are made at run time
    """Header stamp of a message, nanoseconds."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _number_in(file: Path) -> tuple[int, bool]:
    """The number that a file's name ends with, and whether it is a stamp (nanoseconds)."""
    found = re.search(r"(\d+)(?:[._](\d{9}))?$", file.stem)
    if found is None:
        raise InputError(f"{file}: its name ends with no number: name labels by the index or stamp of their frames")
    whole, fraction = found.groups()
    if fraction is not None:
        return int(whole) * 10**9 + int(fraction), True
    return int(whole), len(whole) >= _STAMP_DIGITS


def _ids_of_message(message: Any, name: str) -> np.ndarray:
    if not hasattr(message, "encoding"):
        return _ids_of_png(bytes(message.data), name)
    if message.encoding not in ("mono8", "8UC1", "mono16", "16UC1"):
        raise InputError(f"{name}: encoding '{message.encoding}' holds no ids: record mono8, 8UC1, mono16 or 16UC1")
    height, width, step = int(message.height), int(message.width), int(message.step)
    sample = np.dtype("u1" if message.encoding in ("mono8", "8UC1") else ">u2" if message.is_bigendian else "<u2")
    if height <= 0 or width <= 0 or step < width * sample.itemsize or len(message.data) < step * height:
        raise InputError(f"{name}: {width}x{height} with step {step} and {len(message.data)} bytes: record it again")
    view: np.ndarray = np.ndarray((height, width), sample, buffer=message.data, strides=(step, sample.itemsize))
    return _as_ids(view, name)


def _ids_of_png(content: bytes, name: str) -> np.ndarray:
    try:
        return decode.index(content, name)
    except DatasetError as error:  # one kind of error for both sources
        raise InputError(str(error)) from error


def _as_ids(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.min() < 0 or values.max() > 255:
        raise InputError(f"{name}: holds id {int(values.max())}: ids run from 0 to 255")
    return values.astype(np.uint8)
