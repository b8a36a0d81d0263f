"""Boundary IoU: how well the outlines of the classes agree.

Source: Cheng, Girshick, Dollár, Berg, Kirillov, Boundary IoU: Improving Object-Centric Image Segmentation Evaluation,
CVPR 2021, equation 2: |(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|, where G_d is what lies within a distance d of
the outline of the mask G. As in their code d is 2 % of the picture's diagonal, measured in chessboard steps, and the
picture's border counts as an outline. Here the masks are those of a class in a whole picture, and intersection and
union add up over a set, as those of the IoU do.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mfuser_ros.vocabulary import UNKNOWN

DIAGONAL_SHARE = 0.02
_OUTSIDE = 254  # beyond the border: an id that no class has


@dataclass
class Boundary:
    """Pixels near the outlines of each class; sums of several pictures are the counts of all."""

    counts: np.ndarray  # (2, C) int64: intersection, union

    @classmethod
    def empty(cls, classes: int) -> Boundary:
        """Nothing counted yet, for so many classes."""
        return cls(np.zeros((2, classes), np.int64))

    def add(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Count one picture.

        Args:
            label: uint8 (H, W) ids; pixels of 255 are left out of both masks.
            prediction: uint8 (H, W) ids, 255 unknown, which belongs to no class.
        """
        classes = self.counts.shape[1]
        ignored = label == UNKNOWN
        guess = np.where(ignored, UNKNOWN, prediction)  # so that a right mask ends where the label ends
        distance = max(1, round(DIAGONAL_SHARE * float(np.hypot(*label.shape))))
        near_label, near_guess = near_outline(label, distance), near_outline(guess, distance)
        both = near_label & near_guess & (label == guess)
        of_label = np.bincount(label[near_label], minlength=UNKNOWN + 1)[:classes]
        of_guess = np.bincount(guess[near_guess], minlength=UNKNOWN + 1)[:classes]
        common = np.bincount(label[both], minlength=UNKNOWN + 1)[:classes]
        self.counts += np.stack([common, of_label + of_guess - common])

    @property
    def iou(self) -> np.ndarray:
        """(C,) boundary IoU of each class, 0..1; NaN where a class never occurs."""
        common, union = self.counts.astype(np.float64)
        return np.asarray(np.divide(common, union, out=np.full(len(union), np.nan), where=union > 0))

    @property
    def mean(self) -> float | None:
        """Mean over the classes that occur; None where none does."""
        return float(np.nanmean(self.iou)) if (self.counts[1] > 0).any() else None


def near_outline(ids: np.ndarray, distance: int) -> np.ndarray:
    """Pixels that have another id, or the picture's border, within `distance` chessboard steps.

    What is left of a mask after `distance` erosions with a 3x3 square is where the whole square of side 2 distance + 1
    holds one id; least and largest id of that square tell it for all classes at once.

    Args:
        ids: uint8 (H, W), any but 254.
        distance: pixels.

    Returns:
        bool (H, W).
    """
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    least = cv2.erode(ids, square, borderType=cv2.BORDER_CONSTANT, borderValue=_OUTSIDE)
    largest = cv2.dilate(ids, square, borderType=cv2.BORDER_CONSTANT, borderValue=_OUTSIDE)
    return np.asarray((least != ids) | (largest != ids))
