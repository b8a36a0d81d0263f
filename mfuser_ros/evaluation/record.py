"""What an evaluation keeps of each picture: a row of figures, and the pictures at both ends of the scale."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.evaluation.boundary import Boundary
from mfuser_ros.evaluation.dataset import Judged
from mfuser_ros.evaluation.metrics import Calibration, Confusion
from mfuser_ros.vocabulary import UNKNOWN

KEPT_WIDTH = 960  # pixels; larger pictures are kept smaller
WORST, BEST = 8, 2  # pictures

_PLAIN: dict[str, pa.DataType] = {
    "index": pa.int64(),
    "stem": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "latency_ms": pa.float64(),
    "confidence": pa.float64(),
    "unknown_share": pa.float64(),
}
SCORES: dict[str, pa.DataType] = {
    "miou": pa.float64(),
    "pixel_accuracy": pa.float64(),
    "road_precision": pa.float64(),
    "road_recall": pa.float64(),
    "road_iou": pa.float64(),
    "boundary_iou": pa.float64(),
    "ece": pa.float64(),
}
COUNTS: dict[str, pa.DataType] = {  # what any set of rows can be summed from again
    "confusion": pa.list_(pa.int64()),  # (C, C + 1), row by row
    "calibration": pa.list_(pa.float64()),  # (3, BINS): pixels, confidence, correct
    "boundary": pa.list_(pa.int64()),  # (2, C): intersection, union
}


@dataclass(frozen=True, eq=False)
class KeptPicture:
    """A picture that is shown in the report.

    Attributes:
        stem: name of the picture.
        miou: mean IoU of this picture alone.
        picture: uint8 RGB (h, w, 3), at most `KEPT_WIDTH` wide.
        label: uint8 (h, w) ids.
        prediction: uint8 (h, w) ids.
        faults: label -> prediction pairs with the most wrong pixels and their share of the labelled pixels.
    """

    stem: str
    miou: float
    picture: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    faults: tuple[tuple[str, str, float], ...]


@dataclass
class Record:
    """Rows and pictures of an evaluation so far; `add` is given to `evaluate` as its watcher."""

    config: DatasetConfig
    boundary: Boundary = field(init=False)
    rows: list[dict[str, Any]] = field(default_factory=list)  # by the column of frames.parquet
    _worst: list[tuple[float, int, KeptPicture]] = field(default_factory=list)  # heaps
    _best: list[tuple[float, int, KeptPicture]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.boundary = Boundary.empty(len(self.config.labels))

    def add(self, judged: Judged) -> None:
        """Take one picture."""
        label, prediction = judged.sample.label, judged.prediction
        boundary = Boundary.empty(len(self.config.labels))
        boundary.add(label, prediction)
        self.boundary.counts += boundary.counts
        scores = judged.confusion.scores()
        index = len(self.rows)
        self.rows.append({
            "index": index,
            "stem": judged.sample.stem,
            "height": label.shape[0],
            "width": label.shape[1],
            "latency_ms": judged.latency_ms,
            "confidence": float(judged.probability.mean()),
            "unknown_share": float((prediction == UNKNOWN).mean()),
            **score_columns(judged.confusion, judged.calibration, boundary, self.config.road),
            **{f"iou_{entry.name}": number(scores.iou[entry.id]) for entry in self.config.labels},
        })  # fmt: skip
        if scores.miou is not None:
            self._keep(judged, scores.miou, index)

    @property
    def worst(self) -> list[KeptPicture]:
        """The pictures with the least mean IoU, worst first."""
        return [kept for _, _, kept in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))]

    @property
    def best(self) -> list[KeptPicture]:
        """The pictures with the largest mean IoU, best first, none of which is among the worst."""
        shown = {kept.stem for kept in self.worst}
        ranked = sorted(self._best, key=lambda entry: (-entry[0], -entry[1]))
        return [kept for _, _, kept in ranked if kept.stem not in shown]

    def latency_ms(self) -> dict[str, float] | None:
        """Percentiles 50, 95 and 99 over the pictures; None of nothing."""
        times = [row["latency_ms"] for row in self.rows]
        if not times:
            return None
        values = np.percentile(times, (50, 95, 99))
        return {f"p{share}": float(value) for share, value in zip((50, 95, 99), values, strict=True)}

    def write_frames(self, folder: Path) -> Path:
        """Write frames.parquet, one row a picture, into a folder, which is made if need be; its path."""
        scores = {f"iou_{label.name}": pa.float64() for label in self.config.labels}
        schema = pa.schema(list({**_PLAIN, **SCORES, **scores, **COUNTS}.items()))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "frames.parquet"
        pq.write_table(pa.Table.from_pylist(self.rows, schema=schema), path)
        return path

    def _keep(self, judged: Judged, miou: float, index: int) -> None:
        # the smallest entry leaves a heap: of the worst the one with the largest IoU, of equals the last that came
        for heap, rank, size in ((self._worst, -miou, WORST), (self._best, miou, BEST)):
            if len(heap) < size or (rank, -index) > heap[0][:2]:
                heapq.heappush(heap, (rank, -index, self._kept(judged, miou)))
                if len(heap) > size:
                    heapq.heappop(heap)

    def _kept(self, judged: Judged, miou: float) -> KeptPicture:
        sample = judged.sample
        height, width = sample.label.shape
        scale = min(1.0, KEPT_WIDTH / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return KeptPicture(
            sample.stem,
            miou,
            cv2.resize(sample.picture, size, interpolation=cv2.INTER_AREA),
            cv2.resize(sample.label, size, interpolation=cv2.INTER_NEAREST),
            cv2.resize(judged.prediction, size, interpolation=cv2.INTER_NEAREST),
            _faults(judged.confusion.counts, [label.name for label in self.config.labels]),
        )


def score_columns(
    confusion: Confusion, calibration: Calibration, boundary: Boundary, road: int | None
) -> dict[str, Any]:
    """The columns `SCORES` and `COUNTS` of one picture.

    Args:
        confusion: of the picture, as all that follow.
        calibration: of its confidence.
        boundary: of its outlines.
        road: label id of the road; None where no label holds it.
    """
    scores = confusion.scores()
    return {
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "road_precision": None if road is None else number(scores.precision[road]),
        "road_recall": None if road is None else number(scores.recall[road]),
        "road_iou": None if road is None else number(scores.iou[road]),
        "boundary_iou": boundary.mean,
        "ece": calibration.ece,
        "confusion": confusion.counts.ravel().tolist(),
        "calibration": np.concatenate([calibration.pixels, calibration.confidence, calibration.correct]).tolist(),
        "boundary": boundary.counts.ravel().tolist(),
    }


def number(value: float | None) -> float | None:
    """A score as it goes into a file: null where there is none."""
    return None if value is None or math.isnan(value) else float(value)


def _faults(counts: np.ndarray, names: list[str], most: int = 3) -> tuple[tuple[str, str, float], ...]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    total = max(int(counts.sum()), 1)
    seen_as = [*names, "unknown"]
    found = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        row, column = np.unravel_index(place, wrong.shape)
        if wrong[row, column]:
            found.append((names[row], seen_as[column], float(wrong[row, column] / total)))
    return tuple(found)
