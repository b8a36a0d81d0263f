"""Steady masks of a moving camera: labels that flicker from one picture to the next are held, dangers are not.

A filter over single results, for pictures that follow each other. What it shows of a point of the scene, which is found
in the picture before along the optical flow, is

1. this frame's own label if it is as probable as the threshold asks, or a little less (`hysteresis`) where the same
   label was shown of this point before; else unknown;
2. where that differs from what was shown before, the earlier label once more, if that was the frame's own then, and if
   it is the more careful one.

So nothing waits for a later picture, and every label is the network's own of this frame or of the frame before: a
change that lasts is shown with its second frame at the latest, and with its first if it is for the worse. From the
least careful: drivable; other ground; unknown and sky; static things; things that move. What may be driven on is never
shown by an earlier frame's word, and a thing that stands or moves is shown by the frame that sees it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.inference.flow import FlowTracker, Track, pixel_grid
from mfuser_ros.inference.segmentation import Segmentation
from mfuser_ros.inference.segmenter import Segmenter
from mfuser_ros.vocabulary import UNKNOWN, Vocabulary

HYSTERESIS = 0.08  # of the threshold; docs/steady.md shows what other values give
MAX_GAP_S = 0.5
LEAST_SURE = 0.3  # a smaller share of the picture that can be followed is a cut
_LONG_SIDE = 480  # of the flow's grid, pixels

_DRIVABLE, _UNKNOWN = 0, 2
_CARE = {"drivable": _DRIVABLE, "walkable": 1, "ground": 1, "sky": _UNKNOWN, "static": 3, "dynamic": 4}


class _Shown(NamedTuple):
    """What the frame before has shown."""

    time_s: float
    grid: np.ndarray  # (h, w) grey picture of the flow
    state: np.ndarray  # (H, W, 3) uint8: mask, confidence, and 1 where the mask is the frame's own, 0 where it was held


class Steady:
    """A Segmenter for pictures that follow each other, of one camera or several.

    Leave it out for single pictures and for scores on data sets. Not for several threads at once.

    Args:
        segmenter: gives the single results; its threshold is the one in force when a picture is given.
        hysteresis: how far below the threshold the probability of a label may fall before it turns unknown, 0..1.
        max_gap_s: pictures farther apart do not follow each other.

    Raises:
        ConfigurationError: a value that cannot work.
    """

    def __init__(self, segmenter: Segmenter, *, hysteresis: float = HYSTERESIS, max_gap_s: float = MAX_GAP_S) -> None:
        if not 0 <= hysteresis <= 1:
            raise ConfigurationError(f"hysteresis {hysteresis}: must lie between 0 and 1")
        if max_gap_s <= 0:
            raise ConfigurationError(f"max_gap_s {max_gap_s}: must be more than 0 s")
        self.segmenter = segmenter
        self._hysteresis = hysteresis
        self._max_gap_s = max_gap_s
        self._care = care_of(segmenter.vocabulary)
        self._tracker = FlowTracker(long_side=_LONG_SIDE, effort="fast")
        self._shown: dict[str, _Shown] = {}

    def __call__(self, picture: np.ndarray, *, time_s: float, camera: str = "") -> Segmentation:
        """Segment a picture and make the result steady.

        Args:
            picture: uint8 RGB (H, W, 3).
            time_s: of the picture; only differences count.
            camera: whose picture it is.

        Raises:
            InputError: not a uint8 RGB array.
            InferenceError: the network gave scores that are not numbers.
        """
        return self.update(self.segmenter(picture), time_s=time_s, camera=camera)

    def update(self, result: Segmentation, *, time_s: float, camera: str = "") -> Segmentation:
        """Make the single result of a picture steady; give the results of a camera in the order of their times.

        After a cut, a gap, a step back in time or a change of size the result stays as it is.

        Args:
            result: of the segmenter.
            time_s: of the picture; only differences count.
            camera: whose picture it is.

        Returns:
            The result with another mask and labels. The confidence of a held label is that of the frame before.
        """
        before = self._shown.get(camera)
        grid = self._tracker.grid(result.picture)
        state = cv2.merge([result.mask, result.confidence, np.ones_like(result.mask)])  # (H, W, 3)
        if before is not None and before.state.shape == state.shape and 0 < time_s - before.time_s <= self._max_gap_s:
            track = self._tracker.track(before.grid, grid)
            if track.sure.mean() >= LEAST_SURE:
                state = self._filtered(result, *warped(before.state, track))
        self._shown[camera] = _Shown(time_s, grid, state)
        mask, confidence, _ = cv2.split(state)
        return replace(result, mask=mask, confidence=confidence, labels=np.where(mask == UNKNOWN, result.labels, mask))

    def reset(self, camera: str | None = None) -> None:
        """Forget what was shown of one camera, or of all."""
        if camera is None:
            self._shown.clear()
        else:
            self._shown.pop(camera, None)

    def _filtered(
        self, result: Segmentation, shown: np.ndarray, shown_confidence: np.ndarray, was_own: np.ndarray
    ) -> np.ndarray:
        """State of this frame from its single result and from what the frame before has shown of its points."""
        labels, confidence = result.labels, result.confidence.copy()
        least = max(0.0, self.segmenter.threshold - self._hysteresis) * 255
        mask = np.where((shown == labels) & (confidence >= np.uint8(np.ceil(least))), labels, result.mask)
        own = np.ones_like(mask)
        differs = np.flatnonzero((mask != shown) & (was_own == 1))  # few
        now, label, earlier = mask.flat[differs], labels.flat[differs], shown.flat[differs]
        care = np.where(now == UNKNOWN, np.maximum(self._care[label], _UNKNOWN), self._care[label])
        # a label that was sure and no longer is stays for this frame too, unless one may drive on it
        wanes = (earlier == label) & (self._care[label] > _DRIVABLE)
        held = differs[(self._care[earlier] >= care) | wanes]
        mask.flat[held] = shown.flat[held]
        confidence.flat[held] = shown_confidence.flat[held]
        own.flat[held] = 0
        return np.asarray(cv2.merge([mask, confidence, own]))


def care_of(vocabulary: Vocabulary) -> np.ndarray:
    """(256,) uint8: how careful it is to take a point for each class id, or for unknown."""
    care = np.full(256, _UNKNOWN, np.uint8)
    for entry in vocabulary.classes:
        care[entry.id] = _CARE[entry.role]
    return care


def warped(state: np.ndarray, track: Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask, confidence and own labels of the frame before at the points that this frame sees.

    Args:
        state: (H, W, 3) uint8 of the frame before.
        track: from the picture of this frame back to that one, on a grid of its own.

    Returns:
        Three of uint8 (H, W); where the point is not surely found the mask is unknown and the label nobody's own.
    """
    height, width = state.shape[:2]
    rows, columns = track.sure.shape
    scale = np.array([width / columns, height / rows], np.float32)
    flow = (track.places - pixel_grid(columns, rows)) * scale
    places = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) + pixel_grid(width, height)
    found = cv2.remap(state, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    mask, confidence, own = cv2.split(found)
    sure = cv2.resize(track.sure.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    mask[sure == 0] = UNKNOWN
    return mask, confidence, own & sure
