"""The result of segmenting one picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mfuser_ros.vocabulary import UNKNOWN, Vocabulary


@dataclass(frozen=True)
class Segmentation:
    """One picture and what the model says of each pixel.

    Attributes:
        picture: uint8 RGB (H, W, 3), as it was given.
        mask: uint8 (H, W), class id of the vocabulary; 255 where the model does not know.
        confidence: uint8 (H, W), calibrated probability of the best class; 0..255 stands for 0..1.
        labels: uint8 (H, W), the best class everywhere, never 255.
        vocabulary: what the ids mean.
    """

    picture: np.ndarray
    mask: np.ndarray
    confidence: np.ndarray
    labels: np.ndarray
    vocabulary: Vocabulary

    def overlay(self, alpha: float = 0.5) -> np.ndarray:
        """The picture with the class colours laid over it, uint8 RGB (H, W, 3); unknown pixels keep the picture."""
        return overlay(self.picture, self.mask, self.vocabulary, alpha)


def overlay(picture: np.ndarray, mask: np.ndarray, vocabulary: Vocabulary, alpha: float = 0.5) -> np.ndarray:
    """Lay class colours over a picture.

    Args:
        picture: uint8 RGB (H, W, 3).
        mask: uint8 (H, W) class ids; 255 keeps the picture as it is.
        vocabulary: gives the colours.
        alpha: share of the colour, 0..1.

    Returns:
        uint8 RGB (H, W, 3).
    """
    colours = vocabulary.palette()[mask]  # (H, W, 3)
    blended: np.ndarray = cv2.addWeighted(picture, 1 - alpha, colours, alpha, 0)
    unknown = mask == UNKNOWN
    if unknown.any():
        blended[unknown] = picture[unknown]
    return blended
