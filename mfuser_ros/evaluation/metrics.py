"""Scores of a segmentation from one confusion matrix over a whole set, and how far its confidence can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuser_ros.vocabulary import UNKNOWN

BINS = 15  # of the calibration error


@dataclass
class Confusion:
    """Counts of pixels: rows are labels, columns predictions; the last column is "unknown" (255)."""

    counts: np.ndarray  # (C, C + 1) int64

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        """A matrix of zeros for so many classes."""
        return cls(np.zeros((classes, classes + 1), np.int64))

    def add(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Count one picture.

        Args:
            label: uint8 ids of any shape; 255 is left out.
            prediction: uint8 ids of the same shape; 255 counts as wrong.

        Raises:
            ValueError: an id that has no row or column.
        """
        classes = len(self.counts)
        seen = label != UNKNOWN
        rows = label[seen].astype(np.int64)
        columns = prediction[seen].astype(np.int64)
        columns[columns == UNKNOWN] = classes
        if rows.size and (rows.max() >= classes or columns.max() > classes):
            raise ValueError(f"ids up to {max(rows.max(), columns.max())} for {classes} classes")
        flat = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
        self.counts += flat.reshape(classes, classes + 1)

    def scores(self) -> Scores:
        """Scores of what was counted."""
        hits = np.diag(self.counts).astype(np.float64)
        labelled = self.counts.sum(1)
        predicted = self.counts[:, :-1].sum(0)
        total = max(int(labelled.sum()), 1)
        return Scores(
            iou=_ratio(hits, labelled + predicted - hits),
            precision=_ratio(hits, predicted),
            recall=_ratio(hits, labelled),
            share=labelled / total,
            pixel_accuracy=float(hits.sum() / total) if labelled.sum() else None,
        )


@dataclass(frozen=True)
class Scores:
    """Scores of each class, 0..1; NaN where a class never occurs (label or prediction, as the score needs it)."""

    iou: np.ndarray  # (C,)
    precision: np.ndarray  # (C,)
    recall: np.ndarray  # (C,)
    share: np.ndarray  # (C,) of the labelled pixels
    pixel_accuracy: float | None

    @property
    def miou(self) -> float | None:
        """Mean IoU of the classes that occur in label or prediction; None where none does."""
        return None if np.isnan(self.iou).all() else float(np.nanmean(self.iou))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


@dataclass
class Calibration:
    """Confidence against truth in bins of equal width.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    pixels: np.ndarray  # (BINS,)
    confidence: np.ndarray  # (BINS,) sums
    correct: np.ndarray  # (BINS,) sums

    @classmethod
    def empty(cls) -> Calibration:
        """Nothing counted yet."""
        return cls(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS))

    def add(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Count pixels.

        Args:
            confidence: (N,) probability of the best class, 0..1.
            correct: (N,) bool.
        """
        # bins are open below and closed above, as in the source: (0, 1/15], ..., (14/15, 1]
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.confidence += np.bincount(bins, confidence, minlength=BINS)
        self.correct += np.bincount(bins, correct, minlength=BINS)

    def merge(self, other: Calibration) -> None:
        """Add what another one has counted."""
        self.pixels += other.pixels
        self.confidence += other.confidence
        self.correct += other.correct

    @property
    def ece(self) -> float | None:
        """Expected calibration error: mean distance of confidence and accuracy, bins weighted by their pixels."""
        total = self.pixels.sum()
        return float(np.abs(self.confidence - self.correct).sum() / total) if total else None
