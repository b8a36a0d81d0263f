"""Tells from the pictures that the camera itself is in trouble: black, frozen, overexposed, blurred, covered.

Looks at a few rows of few pictures: a fraction of a millisecond, some times a second. Needs no ROS.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from mfuser_ros.node.stamps import SECOND_NS

Trouble = Literal["black", "frozen", "overexposed", "blurred", "covered"]

TEXTS: dict[Trouble, str] = {
    "black": "pictures are black: check lens cap, exposure and power of the camera",
    "frozen": "pictures do not change: check the camera and its driver",
    "overexposed": "pictures are overexposed: check the exposure and the sun",
    "blurred": "pictures are blurred: clean the lens and check the focus",
    "covered": "a part of the pictures is blank: look for dirt, ice or a cover on the lens",
}
"""What is wrong and what mends it."""

LOOK_PERIOD_NS = SECOND_NS // 5
MIN_LOOKS = 5
"""So many looks in a row must find the same before it is told."""

ROWS = 96
"""Rows of a picture that are looked at."""

TILES = (8, 12)
"""Rows and columns of the tiles that a cover is looked for in."""

DARK = 16.0
BRIGHT = 250.0
MOST = 0.98
"""Share of the pixels that makes a picture black or overexposed; half of it for overexposure, which has a rim."""

FLAT = 2.0
"""Standard deviation of the brightness in a tile that shows nothing."""

COVER_DARK = 24.0
COVER_SHARE = 0.3
DAYLIGHT = 60.0
BLUR_RATIO = 0.175
MIN_CONTRAST = 2.0


class CameraWatch:
    """Looks at the pictures of one camera in the order in which they come."""

    def __init__(self) -> None:
        self._next_look_ns = 0
        self._before: np.ndarray | None = None
        self._found: Trouble | None = None
        self._since_ns = 0
        self._looks = 0

    def reset(self) -> None:
        """Forget what was seen."""
        self.__init__()  # type: ignore[misc]  # all state is made there

    def look(self, picture: np.ndarray, now_ns: int, *, hold_s: float) -> Trouble | None:
        """What is wrong with the camera, once it has been wrong for `hold_s` seconds.

        Args:
            picture: uint8 RGB (H, W, 3), or the part of it that is looked at.
            now_ns: a steady clock.
            hold_s: seconds for which it must have been the same trouble.
        """
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_PERIOD_NS
            rows = sampled_rows(picture)
            same = self._before is not None and np.array_equal(rows, self._before)
            self._before = rows
            found = trouble_of(rows, unchanged=same)
            if found != self._found:
                self._found, self._since_ns, self._looks = found, now_ns, 0
            self._looks += 1
        lasting = self._looks >= MIN_LOOKS and now_ns - self._since_ns >= hold_s * SECOND_NS
        return self._found if lasting else None


def sampled_rows(picture: np.ndarray) -> np.ndarray:
    """Some rows of the green channel, evenly spread, at full width: (n, W) uint8."""
    step = max(1, picture.shape[0] // ROWS)
    return np.ascontiguousarray(picture[::step, :, 1])


def trouble_of(rows: np.ndarray, *, unchanged: bool) -> Trouble | None:
    """What is wrong with a camera by one picture.

    Args:
        rows: as `sampled_rows` gives.
        unchanged: they are equal to those of the picture before.
    """
    dark, bright = np.count_nonzero(rows < DARK) / rows.size, np.count_nonzero(rows > BRIGHT) / rows.size
    if dark > MOST:
        return "black"
    if bright > MOST / 2:
        return "overexposed"
    if unchanged:
        return "frozen"
    if _is_covered(rows):
        return "covered"
    return "blurred" if sharpness(rows) < BLUR_RATIO else None


def sharpness(rows: np.ndarray) -> float:
    """Mean step between neighbours in a row over the mean step between pixels 8 apart; infinite without contrast.

    Of a straight ramp it is 1/8 and of noise 1; real scenes lie between, whatever their contrast, because their
    spectrum falls with the frequency and that of a blurred picture falls faster.
    """
    if rows.shape[1] <= 8:
        return float("inf")
    near = float(cv2.mean(cv2.absdiff(rows[:, 1:], rows[:, :-1]))[0])
    far = float(cv2.mean(cv2.absdiff(rows[:, 8:], rows[:, :-8]))[0])
    return near / far if far >= MIN_CONTRAST else float("inf")


def _is_covered(rows: np.ndarray) -> bool:
    """Whether a large part is dark and shows nothing, while the rest shows something.

    In the upper half only while the lower half is bright: a night sky is dark and flat too.
    """
    if min(rows.shape) < 2 * max(TILES):
        return False
    count_rows, count_columns = TILES
    values = rows.astype(np.float32)
    mean = cv2.resize(values, (count_columns, count_rows), interpolation=cv2.INTER_AREA)
    square = cv2.resize(values * values, (count_columns, count_rows), interpolation=cv2.INTER_AREA)
    blank = (mean < COVER_DARK) & (square - mean * mean < FLAT**2)
    upper, lower = blank[: count_rows // 2], blank[count_rows // 2 :]
    lit = float(mean[count_rows // 2 :].mean()) > DAYLIGHT
    return bool(lower.mean() > COVER_SHARE or (lit and upper.mean() > COVER_SHARE))
