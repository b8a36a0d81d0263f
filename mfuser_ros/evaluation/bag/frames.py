"""The row that each frame leaves in frames.parquet, and what rows add up to.

A row holds all that was counted on its frame, so that any set of rows can be summed again: for a summary, for a
bootstrap over frames, for many bags, after an interruption. Sums run in the order of the rows; they are the same to the
last digit however the rows came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa

from mfuser_ros.evaluation.boundary import Boundary
from mfuser_ros.evaluation.metrics import Calibration, Confusion
from mfuser_ros.evaluation.record import COUNTS, SCORES
from mfuser_ros.evaluation.temporal import Flips

Row = dict[str, Any]  # one frame by column

TIMES = ("latency_ms",)
"""Columns that differ from run to run; all others are the same every time on a CPU."""

_PLAIN: dict[str, pa.DataType] = {
    "bag": pa.string(),
    "topic": pa.string(),
    "index": pa.int64(),
    "stamp_ns": pa.int64(),
    "time_s": pa.float64(),
    "frame_id": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "latency_ms": pa.float64(),
    "confidence": pa.float64(),
    "unknown_share": pa.float64(),
    "flips_per_s": pa.float64(),
    "drivable_m": pa.float64(),
    "free_m2": pa.float64(),
    "labelled": pa.bool_(),
    **SCORES,
    "drivable_iou": pa.float64(),
    "drivable_iou_m": pa.float64(),
    "false_free_m2": pa.float64(),
    "missed_free_m2": pa.float64(),
}
_COUNTS: dict[str, pa.DataType] = {
    "flips": pa.list_(pa.float64()),  # the fields of temporal.Flips
    **COUNTS,
    "drivable_pixels": pa.list_(pa.int64()),  # true free, false free, missed free
    "drivable_cells": pa.list_(pa.int64()),  # likewise, cells of the grid
}

NULLABLE_METRICS = tuple(name for name, kind in _PLAIN.items() if kind == pa.float64() and name != "time_s")
"""Columns with one number for a frame, null where it was not measured: what limits and timelines can name."""


def schema(classes: Sequence[str]) -> pa.Schema:
    """Columns of frames.parquet for a vocabulary with these class names."""
    shares = {f"share_{name}": pa.float64() for name in classes}
    return pa.schema(list({**_PLAIN, **shares, **_COUNTS}.items()))


@dataclass
class Sums:
    """What rows of one label scheme add up to."""

    classes: tuple[str, ...]
    groups: int
    frames: int = 0
    labelled: int = 0
    pixels: int = 0
    shares: np.ndarray = field(init=False)  # (K,) pixels of each class
    unknown: float = 0.0  # pixels
    confidence: float = 0.0  # sum over the frames
    confusion: Confusion = field(init=False)
    calibration: Calibration = field(default_factory=Calibration.empty)
    boundary: Boundary = field(init=False)
    drivable_pixels: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    drivable_cells: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    flips: Flips = field(default_factory=Flips)
    latency_ms: list[float] = field(default_factory=list)
    drivable_m: list[float] = field(default_factory=list)
    free_m2: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shares = np.zeros(len(self.classes))
        self.confusion = Confusion.empty(self.groups)
        self.boundary = Boundary.empty(self.groups)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the row of one frame."""
        pixels = row["height"] * row["width"]
        self.frames += 1
        self.pixels += pixels
        self.shares += pixels * np.array([row[f"share_{name}"] for name in self.classes])
        self.unknown += pixels * row["unknown_share"]
        self.confidence += row["confidence"]
        self.latency_ms.append(row["latency_ms"])
        for name, values in (("drivable_m", self.drivable_m), ("free_m2", self.free_m2)):
            if row[name] is not None:
                values.append(row[name])
        if row["flips"] is not None:
            for column, value in zip(fields(Flips), row["flips"], strict=True):
                known = getattr(self.flips, column.name)
                setattr(self.flips, column.name, known + type(known)(value))
        if row["labelled"]:
            self._add_labelled(row)
        if row["drivable_cells"] is not None:
            self.drivable_cells += np.array(row["drivable_cells"], np.int64)

    def _add_labelled(self, row: Mapping[str, Any]) -> None:
        self.labelled += 1
        self.confusion.counts += np.array(row["confusion"], np.int64).reshape(self.groups, self.groups + 1)
        pixels, confidence, correct = np.array(row["calibration"]).reshape(3, -1)
        self.calibration.merge(Calibration(pixels, confidence, correct))
        self.boundary.counts += np.array(row["boundary"], np.int64).reshape(2, self.groups)
        self.drivable_pixels += np.array(row["drivable_pixels"], np.int64)


def rows_of(tables: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    """The rows of batches, one after the other."""
    for batch in tables:
        yield from batch.to_pylist()


def iou_of(counts: Sequence[int] | np.ndarray) -> float | None:
    """True over true, false and missed; None where there is none of them."""
    total = int(sum(counts))
    return int(counts[0]) / total if total else None
