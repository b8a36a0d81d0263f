"""What a split holds, found by decoding every pair: the first bad file ends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.vocabulary import UNKNOWN


@dataclass
class Content:
    """Counts over the pictures of a split.

    Attributes:
        pictures: how many were decoded.
        pixels: (256,) int64, pixels of each label id; the last is "not labelled".
        present: (256,) int64, pictures in which an id occurs.
        sizes: (height, width) -> how many pictures.
    """

    pictures: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(UNKNOWN + 1, np.int64))
    present: np.ndarray = field(default_factory=lambda: np.zeros(UNKNOWN + 1, np.int64))
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)

    def shares(self, config: DatasetConfig) -> list[tuple[str, float, int]]:
        """Name, share of the labelled pixels (0..1) and number of pictures of each label of a set."""
        labelled = max(int(self.pixels[:UNKNOWN].sum()), 1)
        return [
            (label.name, float(self.pixels[label.id] / labelled), int(self.present[label.id]))
            for label in config.labels
        ]

    @property
    def unlabelled(self) -> float:
        """Share of all pixels that carry no label, 0..1."""
        return float(self.pixels[UNKNOWN] / max(int(self.pixels.sum()), 1))


def content_of(samples: Iterable[Sample]) -> Content:
    """Decode and count every sample.

    Raises:
        DatasetError: from the reader, about the first bad file.
    """
    content = Content()
    for sample in samples:
        counts = np.bincount(sample.label.ravel(), minlength=UNKNOWN + 1)
        content.pictures += 1
        content.pixels += counts
        content.present += counts > 0
        size = (sample.label.shape[0], sample.label.shape[1])
        content.sizes[size] = content.sizes.get(size, 0) + 1
    return content
