"""summary.json of an evaluation: stable keys; what was not measured is null."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mfuser_ros.evaluation.dataset import Evaluation

VERSION = 1


def summarise(
    evaluation: Evaluation,
    *,
    source: str,
    model: Mapping[str, str],
    settings: Mapping[str, Any],
    latency_ms: Mapping[str, float] | None = None,
) -> dict[str, Any]:  # JSON
    """The summary of one evaluation.

    Args:
        evaluation: what was counted.
        source: what was evaluated, such as camvid/dusk.
        model: name and sha256.
        settings: of the run: input size, threshold, precision.
        latency_ms: p50, p95 and p99 where they were measured.
    """
    scores = evaluation.confusion.scores()
    labels = evaluation.config.labels
    classes = [
        {
            "id": label.id, "name": label.name, "iou": _number(scores.iou[label.id]),
            "precision": _number(scores.precision[label.id]), "recall": _number(scores.recall[label.id]),
            "share": _number(scores.share[label.id]),
        }
        for label in labels
    ]  # fmt: skip
    road = next((entry for entry, label in zip(classes, labels, strict=True) if label.members[0] == 0), None)
    return {
        "version": VERSION,
        "input": source,
        "model": dict(model),
        "frames": evaluation.frames,
        "classes": classes,
        "miou": _number(scores.miou),
        "pixel_accuracy": _number(scores.pixel_accuracy),
        "confusion": evaluation.confusion.counts.tolist(),
        "road": None if road is None else {key: road[key] for key in ("precision", "recall", "iou")},
        "calibration": {"ece": _number(evaluation.calibration.ece)},
        "boundary_iou": None,
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


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
