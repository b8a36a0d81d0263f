"""One frame of the overlay film: picture, classes and bird's-eye grid side by side, with legend and figures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mfuser_ros.evaluation.drive.birdseye import BACKGROUND, FREE, INK, OCCUPIED, UNSEEN, BirdsEye
from mfuser_ros.evaluation.drive.record import FrameRecord
from mfuser_ros.evaluation.drive.text import draw_text, text_width
from mfuser_ros.inference.segmentation import overlay
from mfuser_ros.vocabulary import Vocabulary

SIZE = (1920, 720)  # width, height of the film, pixels
MARGIN = 16
HEADER = 50
CAPTION = 28
GRID = (400, 600)  # width, height of the bird's-eye panel, pixels
PICTURE_WIDTH = (SIZE[0] - 4 * MARGIN - GRID[0]) // 2
PICTURE_HEIGHT = 470  # at most, or the legend would not fit
FAINT = (150, 160, 172)
LEGEND_COLUMNS = 5
BAR = 90  # pixels that stand for a share of 1 in the legend's bars


@dataclass(frozen=True, eq=False)
class Shot:
    """What one frame of the film shows.

    Attributes:
        picture: uint8 RGB (H, W, 3).
        mask: uint8 (H, W) class ids, 255 unknown.
        occupancy: int8 (rows, cols) drivable area, or None.
        contacts: float32 (N, 4) x, y, z, class id.
        record: figures of the frame.
        number: of the frame, from 1.
    """

    picture: np.ndarray
    mask: np.ndarray
    occupancy: np.ndarray | None
    contacts: np.ndarray
    record: FrameRecord
    number: int


class Composer:
    """Draws shots of one drive. What does not change from shot to shot is drawn once."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        title: str,
        frames: int,
        picture_size: tuple[int, int],
        birds_eye: BirdsEye | None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Draw the constant parts.

        Args:
            vocabulary: names and colours.
            title: of the film.
            frames: how many there will be.
            picture_size: width and height of the camera's pictures, pixels.
            birds_eye: draws the grid, on a panel of `GRID`; None without grids.
            notes: lines below the legend, such as where the camera's pose is from.
        """
        self._vocabulary, self._frames, self._birds_eye = vocabulary, frames, birds_eye
        scale = min(PICTURE_WIDTH / picture_size[0], PICTURE_HEIGHT / picture_size[1])
        self._picture = (round(picture_size[0] * scale), round(picture_size[1] * scale))
        self._top = HEADER + CAPTION
        self._lefts = (MARGIN, 2 * MARGIN + PICTURE_WIDTH, 3 * MARGIN + 2 * PICTURE_WIDTH)
        self._base = np.full((SIZE[1], SIZE[0], 3), BACKGROUND, np.uint8)
        draw_text(self._base, title, (MARGIN, 12), size=24, colour=INK)
        captions = ("camera", "classes", "drivable area, from above")
        for left, caption in zip(self._lefts, captions, strict=True):
            draw_text(self._base, caption, (left, HEADER + 2), size=18, colour=FAINT)
        self._entries = self._plan_legend()
        self._draw_legend_names()
        self._draw_grid_key()
        for row, note in enumerate(notes):
            draw_text(self._base, note, (MARGIN, SIZE[1] - 24 * (len(notes) - row) - 6), size=16, colour=FAINT)

    def draw(self, shot: Shot) -> np.ndarray:
        """uint8 RGB (720, 1920, 3)."""
        canvas = self._base.copy()
        width, height = self._picture
        picture = cv2.resize(shot.picture, self._picture, interpolation=cv2.INTER_AREA)
        coloured = overlay(shot.picture, shot.mask, self._vocabulary, alpha=0.55)
        coloured = cv2.resize(coloured, self._picture, interpolation=cv2.INTER_AREA)
        for left, panel in zip(self._lefts, (picture, coloured), strict=False):
            x = left + (PICTURE_WIDTH - width) // 2
            canvas[self._top : self._top + height, x : x + width] = panel
        left = self._lefts[2]
        if shot.occupancy is not None and self._birds_eye is not None:
            canvas[self._top : self._top + GRID[1], left : left + GRID[0]] = self._birds_eye.draw(
                shot.occupancy, shot.contacts
            )
        else:
            draw_text(canvas, "no grid, see below", (left, self._top + 8), size=18, colour=FAINT)
        self._draw_figures(canvas, shot)
        self._draw_bars(canvas, shot.record.shares)
        return canvas

    def _draw_figures(self, canvas: np.ndarray, shot: Shot) -> None:
        record = shot.record
        parts = [f"frame {shot.number} / {self._frames}", f"t = {record.time_s:.2f} s"]
        parts.append(f"mask after {record.round_trip_ms:.0f} ms")
        if record.drivable_m is not None:
            parts.append(f"free ahead {record.drivable_m:.1f} m")
        line = "     ".join(parts)
        draw_text(canvas, line, (SIZE[0] - MARGIN - text_width(line, 20), 15), size=20, colour=INK)

    def _plan_legend(self) -> list[tuple[str, tuple[int, int, int], tuple[int, int]]]:
        """Name, colour and corner of each entry, column by column."""
        named = [(entry.name, entry.colour) for entry in self._vocabulary.classes] + [("unknown", (0, 0, 0))]
        rows = -(-len(named) // LEGEND_COLUMNS)
        pitch = (2 * PICTURE_WIDTH + MARGIN) // LEGEND_COLUMNS
        top = self._top + self._picture[1] + 20
        step = min(30, (SIZE[1] - 66 - top) // rows)
        return [
            (name, colour, (MARGIN + index // rows * pitch, top + index % rows * step))
            for index, (name, colour) in enumerate(named)
        ]

    def _draw_legend_names(self) -> None:
        for name, colour, (x, y) in self._entries:
            cv2.rectangle(self._base, (x, y + 1), (x + 22, y + 17), colour, -1)
            cv2.rectangle(self._base, (x, y + 1), (x + 22, y + 17), FAINT, 1)
            draw_text(self._base, name, (x + 32, y), size=16, colour=INK)

    def _draw_bars(self, canvas: np.ndarray, shares: np.ndarray) -> None:
        for (_, colour, (x, y)), share in zip(self._entries, shares, strict=True):
            if share < 5e-4:
                continue
            left = x + 142
            cv2.rectangle(canvas, (left, y + 3), (left + max(1, round(share * BAR)), y + 15), colour, -1)
            cv2.rectangle(canvas, (left, y + 3), (left + max(1, round(share * BAR)), y + 15), FAINT, 1)
            draw_text(canvas, f"{share:.1%}", (left + round(share * BAR) + 6, y), size=15, colour=FAINT)

    def _draw_grid_key(self) -> None:
        x, y = self._lefts[2], self._top + GRID[1] + 12
        for name, colour in (("free", FREE), ("occupied", OCCUPIED), ("unknown", UNSEEN)):
            cv2.rectangle(self._base, (x, y + 1), (x + 18, y + 15), colour, -1)
            draw_text(self._base, name, (x + 24, y - 1), size=15, colour=INK)
            x += 34 + text_width(name, 15) + 8
        cv2.circle(self._base, (x + 6, y + 8), 5, INK, 1, cv2.LINE_AA)
        draw_text(self._base, "contact", (x + 18, y - 1), size=15, colour=INK)
