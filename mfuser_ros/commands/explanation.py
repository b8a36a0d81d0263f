"""Sheets of pictures that show what a model sees: labelled panels, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mfuser_ros.inference import Segmentation
from mfuser_ros.inference.explain import Explanation

QUERY_COLUMNS = 4
QUERY_WIDTH = 320  # of a panel, pixels
GAP = 6  # between panels, pixels
INK, PAPER = (230, 230, 230), (24, 24, 24)
_FONT, _SMOOTH = cv2.FONT_HERSHEY_SIMPLEX, cv2.INTER_CUBIC


class Panel(NamedTuple):
    """One picture of a sheet."""

    label: str
    picture: np.ndarray  # uint8 RGB (H, W, 3)
    colour: tuple[int, int, int] | None = None  # RGB of a swatch before the label


def features_sheet(result: Segmentation, explanation: Explanation) -> np.ndarray:
    """Both towers before and after fusion, and how far fusion moved each place; panels have the size of the picture.

    Returns:
        uint8 RGB, three columns (before, after, moved) and two rows (VFM, VLM).
    """
    size = result.picture.shape[1::-1]
    panels = []
    for tower, before, after, moved in (
        ("VFM", explanation.vfm_before, explanation.vfm_after, explanation.vfm_moved),
        ("VLM", explanation.vlm_before, explanation.vlm_after, explanation.vlm_moved),
    ):
        most = float(moved.max())
        panels += [
            Panel(
                f"{tower}, stage {explanation.stage}, before fusion", cv2.resize(before, size, interpolation=_SMOOTH)
            ),
            Panel("after fusion", cv2.resize(after, size, interpolation=_SMOOTH)),
            Panel(f"moved by fusion: black 0%, yellow {most:.1%}", _heat(moved / (most or 1), size)),
        ]
    return sheet(panels, 3)


def queries_sheet(result: Segmentation, explanation: Explanation) -> np.ndarray:
    """The picture with its mask, then one heatmap for each class, warm where its query looks.

    Returns:
        uint8 RGB, `QUERY_COLUMNS` columns.
    """
    height, width = result.picture.shape[:2]
    size = (QUERY_WIDTH, max(1, round(height * QUERY_WIDTH / width)))
    small = cv2.resize(result.picture, size, interpolation=cv2.INTER_AREA)
    grey = np.repeat(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[:, :, None], 3, 2)
    panels = [Panel("mask", cv2.resize(result.overlay(), size, interpolation=cv2.INTER_AREA))]
    for entry, heat, presence in zip(
        result.vocabulary.classes, explanation.heatmaps, explanation.presence, strict=True
    ):
        blended = cv2.addWeighted(_heat(heat, size), 0.6, grey, 0.4, 0)
        panels.append(Panel(f"{entry.name}: {presence:.0%}", blended, entry.colour))
    return sheet(panels, QUERY_COLUMNS)


def sheet(panels: Sequence[Panel], columns: int) -> np.ndarray:
    """Panels of one size in rows, each below its label.

    Returns:
        uint8 RGB; a last row that is not full ends in paper.
    """
    height, width = panels[0].picture.shape[:2]
    strip_height = label_height(width)
    rows = -(-len(panels) // columns)
    step_y, step_x = height + strip_height + GAP, width + GAP
    page = np.full((rows * step_y + GAP, columns * step_x + GAP, 3), PAPER, np.uint8)
    for index, panel in enumerate(panels):
        top, left = GAP + index // columns * step_y, GAP + index % columns * step_x
        _label(page[top : top + strip_height, left : left + width], panel)
        page[top + strip_height : top + strip_height + height, left : left + width] = panel.picture
    return page


def label_height(width: int) -> int:
    """Height of the label above a panel of this width, pixels."""
    return max(28, width // 25)


def _label(strip: np.ndarray, panel: Panel) -> None:
    height, width = strip.shape[:2]
    margin, indent = height // 5, 2
    if panel.colour is not None:
        side = height - 2 * margin
        strip[margin:-margin, indent : indent + side] = panel.colour
        indent += side + margin
    scale = height / 56
    thickness = max(1, height // 28)
    (length, _), _ = cv2.getTextSize(panel.label, _FONT, scale, thickness)
    scale *= min(1, (width - indent) / length)  # a narrow panel has small letters
    cv2.putText(strip, panel.label, (indent, height * 2 // 3), _FONT, scale, INK, thickness, cv2.LINE_AA)


def _heat(share: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """0..1 on a grid -> RGB from black over red to yellow, at the size (width, height)."""
    large = cv2.resize(share, (size[0], size[1]), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.applyColorMap(np.round(255 * large).astype(np.uint8), cv2.COLORMAP_INFERNO)
    heat: np.ndarray = cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)
    return heat
