"""One labelled picture of a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One labelled picture."""

    picture: np.ndarray  # (H, W, 3) uint8 RGB
    label: np.ndarray  # (H, W) uint8: label ids of the set (train ids where it has all 19), 255 ignored
    stem: str
