"""Picture, label and prediction side by side."""

from __future__ import annotations

import cv2
import numpy as np

from mfuser_ros.vocabulary import UNKNOWN

PANEL_WIDTH = 480  # pixels
_GAP = 6
_WRONG = (255, 255, 255)


def triptych(
    picture: np.ndarray,
    label: np.ndarray | None,
    prediction: np.ndarray,
    palette: np.ndarray,
    *,
    width: int = PANEL_WIDTH,
) -> np.ndarray:
    """Put picture | label | prediction into one picture; wrong pixels of the prediction are hatched in white.

    Args:
        picture: uint8 RGB (H, W, 3).
        label: uint8 (h, w) ids, 255 not labelled (black); None: the panel is left out.
        prediction: uint8 (h, w) ids, 255 unknown (black).
        palette: (256, 3) uint8 RGB, a colour for each id.
        width: of one panel, pixels; they keep the shape of the picture.

    Returns:
        uint8 RGB, the panels with a white gap between them.
    """
    size = (width, max(1, round(width * picture.shape[0] / picture.shape[1])))
    shown = cv2.resize(prediction, size, interpolation=cv2.INTER_NEAREST)
    panels = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA)]
    answer = palette[shown]
    if label is not None:
        truth = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        panels.append(palette[truth])
        rows, columns = np.indices(truth.shape)
        answer[(truth != UNKNOWN) & (truth != shown) & ((rows + columns) % 6 == 0)] = _WRONG
    panels.append(answer)
    gap = np.full((size[1], _GAP, 3), 255, np.uint8)
    joined = [piece for panel in panels for piece in (panel, gap)][:-1]
    return np.concatenate(joined, axis=1)
