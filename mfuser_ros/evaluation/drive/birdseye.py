"""The drivable area from above: grid, contacts, range rings, vehicle."""

from __future__ import annotations

import cv2
import numpy as np

from mfuser_ros.evaluation.drive.text import draw_text
from mfuser_ros.vocabulary import Vocabulary

BACKGROUND = (24, 28, 34)
UNSEEN = (44, 50, 58)
FREE = (64, 150, 92)
OCCUPIED = (214, 84, 72)
RING = (120, 130, 142)
INK = (226, 230, 235)

RING_STEP_M = 10.0
VEHICLE_M = (4.6, 1.8)  # length, width of the outline drawn at the origin


class BirdsEye:
    """Draws grids of one geometry, forward up and left to the left, as RGB panels of a fixed size."""

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        resolution: float,
        x_min: float,
        y_min: float,
        size: tuple[int, int],
        vocabulary: Vocabulary,
    ) -> None:
        """Plan the panel.

        Args:
            shape: rows (y) and columns (x) of the grids.
            resolution: side of a cell, metres.
            x_min, y_min: corner of cell (0, 0), metres.
            size: width and height of the panel, pixels.
            vocabulary: colours of the contacts.
        """
        rows, cols = shape
        self._resolution, self._x_min, self._y_min = resolution, x_min, y_min
        self._x_max, self._y_max = x_min + cols * resolution, y_min + rows * resolution
        self._size = size
        self._scale = min(size[0] / (rows * resolution), size[1] / (cols * resolution))  # pixels per metre
        self._inner = (round(rows * resolution * self._scale), round(cols * resolution * self._scale))
        self._offset = ((size[0] - self._inner[0]) // 2, (size[1] - self._inner[1]) // 2)
        self._colours = np.zeros((256, 3), np.uint8)  # row is the occupancy as uint8
        self._colours[:] = UNSEEN
        self._colours[0], self._colours[100] = FREE, OCCUPIED
        self._palette = vocabulary.palette()

    def draw(self, occupancy: np.ndarray, contacts: np.ndarray) -> np.ndarray:
        """One panel.

        Args:
            occupancy: int8 (rows, cols): -1 unknown, 0 free, 100 occupied.
            contacts: float32 (N, 4) x, y, z in metres and class id.

        Returns:
            uint8 RGB (height, width, 3).
        """
        width, height = self._size
        panel = np.full((height, width, 3), BACKGROUND, np.uint8)
        cells = self._colours[occupancy.view(np.uint8)]  # (rows, cols, 3)
        upright = cells.transpose(1, 0, 2)[::-1, ::-1]  # forward up, left to the left
        enlarged = cv2.resize(np.ascontiguousarray(upright), self._inner, interpolation=cv2.INTER_NEAREST)
        left, top = self._offset
        panel[top : top + self._inner[1], left : left + self._inner[0]] = enlarged
        self._draw_rings(panel)
        self._draw_contacts(panel, contacts)
        self._draw_vehicle(panel)
        return panel

    def _draw_contacts(self, panel: np.ndarray, contacts: np.ndarray) -> None:
        dots = [
            (self._pixel(float(x), float(y)), self._palette[int(class_id)].tolist())
            for x, y, _, class_id in contacts
            if self._x_min <= x <= self._x_max and self._y_min <= y <= self._y_max
        ]
        for centre, _ in dots:  # all rims first, or those of a dense row would cover its dots
            cv2.circle(panel, centre, 4, INK, -1, cv2.LINE_AA)
        for centre, colour in dots:
            cv2.circle(panel, centre, 3, colour, -1, cv2.LINE_AA)

    def _draw_rings(self, panel: np.ndarray) -> None:
        centre = self._pixel(0.0, 0.0)
        for range_m in np.arange(RING_STEP_M, self._x_max + 1e-6, RING_STEP_M):
            radius = round(range_m * self._scale)
            cv2.ellipse(panel, centre, (radius, radius), 0, 180, 360, RING, 1, cv2.LINE_AA)
            x, y = self._pixel(float(range_m), 0.0)
            draw_text(panel, f"{range_m:g} m", (x + 6, max(y, 2) + 2), size=15, colour=INK)

    def _draw_vehicle(self, panel: np.ndarray) -> None:
        length, width = VEHICLE_M
        # for scale only: where the origin lies in the vehicle is not known
        left, top = self._pixel(length / 2, width / 2)
        right, bottom = self._pixel(-length / 2, -width / 2)
        cv2.rectangle(panel, (left, top), (right, bottom), INK, -1, cv2.LINE_AA)
        nose = np.array([[left, top], [right, top], [(left + right) // 2, top - (right - left) // 2]], np.int32)
        cv2.fillPoly(panel, [nose], INK, cv2.LINE_AA)

    def _pixel(self, x: float, y: float) -> tuple[int, int]:
        left, top = self._offset
        return round(left + (self._y_max - y) * self._scale), round(top + (self._x_max - x) * self._scale)
