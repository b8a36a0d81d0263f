"""The part of a camera's picture that is looked at, such as all but the vehicle's own bonnet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mfuser_ros.vocabulary import UNKNOWN

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation  # torch is loaded when the node is configured


class Region(NamedTuple):
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    def lies_in(self, height: int, width: int) -> bool:
        """Whether a picture of this size holds the whole region."""
        return self.x + self.width <= width and self.y + self.height <= height

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The region of a (H, W, ...) array, without a copy."""
        return array[self.y : self.y + self.height, self.x : self.x + self.width]

    def spread(self, result: Segmentation, picture: np.ndarray) -> Segmentation:
        """The result of the region as one of the whole picture, unknown outside."""

        def whole(part: np.ndarray, outside: int) -> np.ndarray:
            array = np.full(picture.shape[:2], outside, np.uint8)
            self.cut(array)[:] = part
            return array

        return replace(
            result,
            picture=picture,
            mask=whole(result.mask, UNKNOWN),
            confidence=whole(result.confidence, 0),
            labels=whole(result.labels, UNKNOWN),
        )
