"""Several bags into one result: a folder for each by the hash of its content, then one table and one summary."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.bag.frames import Sums, iou_of, rows_of, schema
from mfuser_ros.evaluation.bag.run import FRAMES, BagResult
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.evaluation.bag.store import batches
from mfuser_ros.evaluation.drive.record import percentiles
from mfuser_ros.evaluation.metrics import Calibration
from mfuser_ros.evaluation.record import number
from mfuser_ros.evaluation.summary import VERSION
from mfuser_ros.inference.segmenter import Segmenter
from mfuser_ros.vocabulary import Vocabulary


class Collected(NamedTuple):
    """All bags together."""

    summary: dict[str, Any]  # JSON
    calibration: Calibration


def collect(
    folders: Sequence[Path], out: Path, *, source: str, settings: BagSettings, segmenter: Segmenter
) -> Collected:
    """Put finished bags together, in the order given; writes `frames.parquet`.

    Args:
        folders: of the bags, each finished; a bag that is given twice counts once.
        out: folder for frames.parquet.
        source: what was evaluated.
        settings: of the evaluation.
        segmenter: the model.

    Raises:
        ConfigurationError: the labels of two bags were scored by different groups.
    """
    unique = list(dict.fromkeys(folders))
    results = [result for folder in unique if (result := BagResult.read(folder)) is not None]
    labelled = [result for result in results if result.labelled]
    groupings = {(tuple(result.groups), str(result.group_members)) for result in labelled}
    if len(groupings) > 1:
        raise ConfigurationError(f"{source}: bags with labels of different schemes: evaluate them one by one")
    shown = (labelled or results)[0]
    sums = _put_together(unique, out, segmenter.vocabulary.names, len(shown.groups))
    scores = _scores(sums, shown, segmenter.vocabulary)
    of_bags = {key: scores.pop(key) for key in ("labelled_frames", "predicted")}
    summary = {
        "version": VERSION,
        "input": source,
        "model": {"name": segmenter.name, "sha256": segmenter.sha256},
        **scores,
        "settings": _settings(settings, segmenter),
        "environment": {
            "python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
        **of_bags,
        "bags": [_bag(result, folder) for result, folder in zip(results, unique, strict=True)],
        "incomplete": any(result.incomplete for result in results),
        "corrupt_messages": sum(result.corrupt for result in results),
        "groups": shown.group_members,
    }  # fmt: skip
    return Collected(summary, sums.calibration)


def scores_in(
    folder: Path, vocabulary: Vocabulary, *, topic: str | None = None, window: tuple[float, float] | None = None
) -> dict[str, Any]:  # JSON
    """Figures of a part of a finished bag, with the keys that they have in a summary.

    Args:
        folder: of the bag.
        vocabulary: of the model.
        topic: of the frames; None: of all cameras.
        window: first and last time, seconds after the first frame; None: all of it.
    """
    result = BagResult.read(folder)
    assert result is not None  # finished
    sums = Sums(vocabulary.names, len(result.groups))
    for row in rows_of(batches(folder / FRAMES)):
        if topic in (None, row["topic"]) and (window is None or window[0] <= row["time_s"] < window[1]):
            sums.add(row)
    return _scores(sums, result, vocabulary)


def _put_together(folders: Iterable[Path], out: Path, classes: Sequence[str], groups: int) -> Sums:
    sums = Sums(tuple(classes), groups)
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / f"{FRAMES}.unfinished"
    with pq.ParquetWriter(unfinished, schema(classes), compression="zstd") as writer:
        for folder in folders:
            for batch in batches(folder / FRAMES):
                writer.write_table(pa.Table.from_batches([batch]))
                for row in rows_of([batch]):
                    sums.add(row)
    unfinished.replace(out / FRAMES)
    return sums


def _scores(sums: Sums, result: BagResult, vocabulary: Vocabulary) -> dict[str, Any]:  # JSON
    scores = sums.confusion.scores()
    has_labels = sums.labelled > 0
    if has_labels:
        classes: list[dict[str, Any]] = [
            {
                "id": index, "name": name, "iou": number(scores.iou[index]),
                "precision": number(scores.precision[index]), "recall": number(scores.recall[index]),
                "share": number(scores.share[index]),
            }
            for index, name in enumerate(result.groups)
        ]  # fmt: skip
    else:
        classes = [
            {
                "id": entry.id, "name": entry.name, "iou": None, "precision": None, "recall": None,
                "share": _ratio(sums.shares[entry.id], sums.pixels),
            }
            for entry in vocabulary.entries()
        ]  # fmt: skip
    road = None
    if has_labels and result.road is not None:
        road = {key: classes[result.road][key] for key in ("precision", "recall", "iou")}
    latency = percentiles(sums.latency_ms)
    return {
        "frames": sums.frames,
        "classes": classes,
        "miou": number(scores.miou),
        "pixel_accuracy": number(scores.pixel_accuracy),
        "confusion": sums.confusion.counts.tolist() if has_labels else None,
        "road": road,
        "calibration": {"ece": number(sums.calibration.ece)},
        "boundary_iou": sums.boundary.mean,
        "latency_ms": {key: number(value) for key, value in latency._asdict().items()},
        "drivable": _drivable(sums),
        "temporal": sums.flips.summary(),
        "limits": [],
        "labelled_frames": sums.labelled,
        "predicted": {
            "shares": {name: _ratio(sums.shares[index], sums.pixels) for index, name in enumerate(vocabulary.names)},
            "unknown_share": _ratio(sums.unknown, sums.pixels),
            "confidence": _ratio(sums.confidence, sums.frames),
        },
    }


def _drivable(sums: Sums) -> dict[str, Any] | None:
    if not sums.labelled and not sums.free_m2:
        return None
    return {
        "iou": iou_of(sums.drivable_pixels) if sums.labelled else None,
        "iou_m": iou_of(sums.drivable_cells),
        "free_m2": float(np.median(sums.free_m2)) if sums.free_m2 else None,
        "free_ahead_m": float(np.median(sums.drivable_m)) if sums.drivable_m else None,
    }


def _settings(settings: BagSettings, segmenter: Segmenter) -> dict[str, Any]:
    stated = settings.model_dump(mode="json", exclude={"model", "scheme"})
    return stated | {
        "scheme": None if settings.scheme is None else settings.scheme.name,
        "threshold": settings.threshold or 0.0,
        "unknown_below": segmenter.threshold,
        "precision": segmenter.precision,
        "device": segmenter.device,
        "threads": torch.get_num_threads(),
    }


def _bag(result: BagResult, folder: Path) -> Mapping[str, Any]:
    return {
        "path": result.bag, "key": result.key, "folder": f"{folder.parent.name}/{folder.name}", "frames": result.frames,
        "expected": result.expected, "labelled": result.labelled, "incomplete": result.incomplete,
        "corrupt_messages": result.corrupt, "damage": result.damage, "notes": result.notes,
    }  # fmt: skip


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
