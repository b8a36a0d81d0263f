"""Training pictures: small sets lie on the device as bytes, all of them, and are drawn and cut there (`Source`).

Sets that are large at full size stay on disk; see `training/disk.py`. `open_source` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mfuser_ros.datasets.config import CLASSES, load_config
from mfuser_ros.datasets.opening import Dataset, open_split
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.training.config import SourceConfig, TrainConfig
from mfuser_ros.training.disk import DiskSource, Windows, label_pixels, rare_factors
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.geometry import Geometry
from mfuser_ros.training.targets import Targets, crop_targets
from mfuser_ros.vocabulary import UNKNOWN

LONGEST = 480  # pixels; larger pictures are shrunk when they are stored
DEVICE_BYTES = 4 << 30  # a set that is larger at full size stays on disk, unless the recipe says otherwise
_WEIGHT_LIMIT = 8.0  # a class that hardly occurs must not rule the loss


@dataclass(frozen=True)
class Source:
    """One data set of N pictures on a device, padded to one size."""

    picture: Tensor  # (N, 3, H, W) uint8 RGB
    label: Tensor  # (N, H, W) uint8
    size: Tensor  # (N, 2) float32 height and width of what is not padding
    chance: Tensor  # (N,) float32, cumulative: sample where a uniform number falls
    membership: Tensor  # (G, K) bool
    weight: Tensor  # (G,) float32 of label ids in the marginal loss
    presence: Tensor  # () bool
    samples: int
    nominal: tuple[int, int] | None

    def fetch(self, step: int) -> None:
        """Nothing to do: all pictures are here."""

    def draw(self, geometry: Geometry) -> tuple[Tensor, Targets]:
        """This process's share of `samples` random crops: (B, 3, h, w) float32 RGB 0..255 and what they show."""
        draws = Draws([self.samples], self.chance.device)
        chosen = torch.searchsorted(self.chance, draws.rand()).clamp_max(len(self.chance) - 1)
        picture, label = geometry(self.picture[chosen], self.label[chosen], self.size[chosen], self.nominal, draws)
        return picture, crop_targets(label, self.membership, self.weight, self.presence)


def draw_batch(sources: Sequence[Source | DiskSource], geometry: Geometry) -> tuple[Tensor, Targets]:
    """This process's share of one batch of all sources, in their order."""
    drawn = [source.draw(geometry) for source in sources]
    pictures = torch.cat([picture for picture, _ in drawn])
    targets = [target for _, target in drawn]
    return pictures, Targets(
        torch.cat([target.label for target in targets]),
        torch.cat([target.membership for target in targets]),
        torch.cat([target.weight for target in targets]),
        torch.cat([target.presence for target in targets]),
    )


def open_source(
    config: SourceConfig, recipe: TrainConfig, data: Path, device: torch.device, *, number: int, cache: Path
) -> Source | DiskSource:
    """A data set of the recipe, on the device or on disk.

    Args:
        config: the set.
        recipe: that it belongs to.
        data: folder of the data sets.
        device: where crops are made.
        number: of the set in the recipe.
        cache: folder that keeps how many pixels of each label a picture of a set on disk shows.

    Raises:
        DatasetError: the set is incomplete or a file of it is wrong.
        ConfigurationError: nothing is left to train on.
    """
    power = recipe.losses.frequency_power
    dataset, chosen = _chosen_pictures(config, data)
    if config.where == "device" or (config.where == "auto" and _fits(dataset, chosen)):
        return load_source(config, data, device, frequency_power=power)
    counts = None
    if config.rare or config.rare_classes or power:
        name = f"{dataset.config.name}_{config.split.replace('/', '_')}_label_pixels.npz"
        counts = label_pixels(dataset, chosen, cache / name)
    weights = np.ones(CLASSES, np.float32) if counts is None else frequency_weights(counts.sum(0), power)
    return DiskSource(
        Windows(dataset, chosen, counts, config, recipe, number),
        config.samples,
        (
            torch.from_numpy(dataset.config.membership()).to(device),
            torch.from_numpy(weights).to(device),
            torch.tensor(dataset.config.presence, device=device),
        ),
        device,
        recipe.workers,
    )


def _chosen_pictures(config: SourceConfig, data: Path) -> tuple[Dataset, list[int]]:
    dataset = open_split(load_config(config.dataset), config.split, data)
    chosen = [
        index for index, stem in enumerate(dataset.stems) if dataset.config.sequence_of(stem) not in config.leave_out
    ]
    if not chosen:
        raise ConfigurationError(f"{config.dataset}/{config.split}: leave_out leaves no picture to train on")
    return dataset, chosen


def _fits(dataset: Dataset, chosen: Sequence[int]) -> bool:
    """Whether all pictures at full size, as large as the first, are few enough bytes for a device."""
    return 4 * dataset[chosen[0]].label.size * len(chosen) <= DEVICE_BYTES


def load_source(
    config: SourceConfig, data: Path, device: torch.device, *, frequency_power: float, limit: int | None = None
) -> Source:
    """Decode a whole split and bring it to the device.

    Args:
        config: which set and how often.
        data: folder of the data sets.
        device: where the pictures will live.
        frequency_power: weights of the labels are their frequency to this power, 1 for the average pixel.
        limit: only so many pictures, for tests.

    Raises:
        DatasetError: the set is incomplete or a file of it is wrong.
        ConfigurationError: nothing is left to train on.
    """
    dataset, chosen = _chosen_pictures(config, data)
    chosen = chosen[:limit]
    with ThreadPoolExecutor() as pool:
        samples = list(pool.map(lambda index: _shrunk(dataset[index]), chosen))
    picture, label, size = _stacked(samples)
    counts = np.stack([np.bincount(sample.label.ravel(), minlength=256)[:CLASSES] for sample in samples])
    return Source(
        picture=torch.from_numpy(picture).to(device),
        label=torch.from_numpy(label).to(device),
        size=torch.from_numpy(size).to(device),
        chance=torch.from_numpy(_chances(counts, config.rare)).to(device),
        membership=torch.from_numpy(dataset.config.membership()).to(device),
        weight=torch.from_numpy(frequency_weights(counts.sum(0), frequency_power)).to(device),
        presence=torch.tensor(dataset.config.presence, device=device),
        samples=config.samples,
        nominal=config.nominal,
    )


def frequency_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Weights of labels from their pixel counts: frequency ** power, scaled so that the average pixel weighs 1.

    Args:
        counts: (G,) pixels of each label id.
        power: 0 or negative.

    Returns:
        (G,) float32; 0 for ids without a pixel, at most 8.
    """
    share = counts / max(counts.sum(), 1)
    weight = np.where(share > 0, np.maximum(share, 1e-9) ** power, 0)
    weight = weight / max((share * weight).sum(), 1e-9)
    return np.asarray(np.minimum(weight, _WEIGHT_LIMIT), np.float32)


def _chances(counts: np.ndarray, rare: dict[int, float]) -> np.ndarray:
    """Cumulative chances of pictures."""
    factor = rare_factors(counts, rare)
    return np.cumsum(factor / factor.sum()).astype(np.float32)


def _shrunk(sample: Sample) -> Sample:
    height, width = sample.label.shape
    scale = LONGEST / max(height, width)
    if scale >= 1:
        return sample
    size = (round(width * scale), round(height * scale))
    picture = cv2.resize(sample.picture, size, interpolation=cv2.INTER_AREA)
    return Sample(picture, cv2.resize(sample.label, size, interpolation=cv2.INTER_NEAREST), sample.stem)


def _stacked(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sizes = np.array([sample.label.shape for sample in samples])
    height, width = sizes.max(0)
    picture = np.zeros((len(samples), 3, height, width), np.uint8)
    label = np.full((len(samples), height, width), UNKNOWN, np.uint8)
    for index, sample in enumerate(samples):
        h, w = sample.label.shape
        picture[index, :, :h, :w] = sample.picture.transpose(2, 0, 1)
        label[index, :h, :w] = sample.label
    return picture, label, sizes.astype(np.float32)
