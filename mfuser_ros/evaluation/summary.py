"""summary.json of an evaluation: stable keys; what was not measured is null."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mfuser_ros.evaluation.dataset import Evaluation
from mfuser_ros.evaluation.record import Record, number

VERSION = 1


def summarise(
    evaluation: Evaluation,
    *,
    source: str,
    model: Mapping[str, str],
    settings: Mapping[str, Any],
    record: Record | None = None,
) -> dict[str, Any]:  # JSON
    """The summary of one evaluation.

    Args:
        evaluation: what was counted.
        source: what was evaluated, such as camvid/dusk.
        model: name and sha256.
        settings: of the run: input size, threshold, precision.
        record: of its pictures, for boundary IoU and latency; None: these were not measured.
    """
    scores = evaluation.confusion.scores()
    labels = evaluation.config.labels
    classes = [
        {
            "id": label.id, "name": label.name, "iou": number(scores.iou[label.id]),
            "precision": number(scores.precision[label.id]), "recall": number(scores.recall[label.id]),
            "share": number(scores.share[label.id]),
        }
        for label in labels
    ]  # fmt: skip
    road = next((entry for entry in classes if entry["id"] == evaluation.config.road), None)
    latency_ms = None if record is None else record.latency_ms()
    return {
        "version": VERSION,
        "input": source,
        "model": dict(model),
        "frames": evaluation.frames,
        "classes": classes,
        "miou": number(scores.miou),
        "pixel_accuracy": number(scores.pixel_accuracy),
        "confusion": evaluation.confusion.counts.tolist(),
        "road": None if road is None else {key: road[key] for key in ("precision", "recall", "iou")},
        "calibration": {"ece": number(evaluation.calibration.ece)},
        "boundary_iou": None if record is None else record.boundary.mean,
        "latency_ms": {key: None if latency_ms is None else latency_ms[key] for key in ("p50", "p95", "p99")},
        "drivable": None,
        "temporal": {"flips_per_s": None},
        "limits": [],
        "settings": dict(settings),
        "environment": {
            "python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }  # fmt: skip


def write_summary(summary: Mapping[str, Any], folder: Path) -> Path:
    """Write summary.json into a folder, which is made if need be; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path
