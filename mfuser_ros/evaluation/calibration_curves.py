"""What a model's probabilities are worth on a set: calibration error, precision of the road, cost of "unknown"."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.calibration import Pixels, mean_nll
from mfuser_ros.evaluation.metrics import Calibration

ROAD = 0  # the class; its label is the one that holds it
RECALLS = (0.90, 0.95)
_CURVE = 201  # points of a curve that is kept


def judge(pixels: Pixels, *, temperature: float, threshold: float) -> dict[str, Any]:  # JSON
    """Figures of one set; probabilities and shares lie between 0 and 1.

    `ece` is over all pixels by their best label (15 bins), `ece_before` the same at a temperature of 1. `road` holds
    the precision at which 90 and 95 % of the road are found when pixels are taken in the order of their probability of
    road, and precision and recall of the pixels whose best label is road, without a threshold and with it.

    Raises:
        DatasetError: there is no road in the pixels.
    """
    probability = pixels.by_label(temperature).numpy()
    label = pixels.label.numpy()
    best, guess = probability.max(1), probability.argmax(1)
    right = guess == label
    known = best >= threshold
    bins = _reliability(best, right)
    before = pixels.by_label(1.0).max(1)
    road = int(pixels.members[:, ROAD].nonzero()[0, 0])
    is_road, said_road = label == road, guess == road
    recall, precision, score = precision_recall(probability[:, road], is_road)
    return {
        "pictures": pixels.pictures,
        "pixels": len(label),
        "nll_before": mean_nll(pixels, 1.0),
        "nll": mean_nll(pixels, temperature),
        "ece_before": _reliability(before.values.numpy(), (before.indices == pixels.label).numpy()).ece,
        "ece": bins.ece,
        "accuracy": float(right.mean()),
        "unknown": float(1 - known.mean()),
        "right_lost": float((right & ~known).sum() / max(right.sum(), 1)),
        "wrong_caught": float((~right & ~known).sum() / max((~right).sum(), 1)),
        "road": {
            "at_recall": [
                {"recall": wanted, **_at_recall(wanted, recall, precision, score)} for wanted in RECALLS
            ],
            "without_threshold": _hits(said_road, is_road),
            "with_threshold": _hits(said_road & known, is_road),
        },
        "reliability": {
            "share": (bins.pixels / bins.pixels.sum()).tolist(),
            "confidence": _mean(bins.confidence, bins.pixels),
            "accuracy": _mean(bins.correct, bins.pixels),
        },
        "precision_recall": _thinned(recall, precision),
    }  # fmt: skip


def precision_recall(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and the score above or at which both hold, one entry for each different score, falling.

    Args:
        score: (N,) the higher the likelier.
        positive: (N,) bool.

    Raises:
        DatasetError: nothing is positive.
    """
    if not positive.any():
        raise DatasetError("no pixel of the set is road: give another set")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # ties are taken all at once
    return hits[last] / hits[-1], hits[last] / (last + 1), score[order][last]


def _at_recall(wanted: float, recall: np.ndarray, precision: np.ndarray, score: np.ndarray) -> dict[str, float]:
    index = int(np.searchsorted(recall, wanted))
    return {"precision": float(precision[index]), "probability": float(score[index])}


def _hits(said: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    hits = float((said & true).sum())
    return {"precision": hits / said.sum() if said.any() else None, "recall": hits / true.sum()}


def _reliability(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    bins = Calibration.empty()
    bins.add(confidence.clip(0, 1), correct)
    return bins


def _mean(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def _thinned(recall: np.ndarray, precision: np.ndarray) -> dict[str, list[float]]:
    """The curve at evenly spaced recalls: at each the precision where that recall is first reached."""
    wanted = np.linspace(0, 1, _CURVE)
    index = np.searchsorted(recall, wanted).clip(0, len(recall) - 1)
    return {"recall": wanted.round(4).tolist(), "precision": precision[index].round(5).tolist()}
