"""Training pictures that stay on disk: worker processes read them and cut windows, the device makes the crops.

A worker decodes picture and label, draws where the crop lies, and sends the window round it in its own pixels. Scaling,
rotation, mirroring and all changes of colour happen on the device. What a sample is depends on seed, source, step and
row alone: a resumed training, or one of more processes, meets the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mfuser_ros.datasets.config import CLASSES
from mfuser_ros.datasets.opening import Dataset as LabelledSet
from mfuser_ros.errors import ConfigurationError, DatasetError, MFuserError
from mfuser_ros.training import processes
from mfuser_ros.training.config import RareClasses, SourceConfig, TrainConfig
from mfuser_ros.training.crops import Crop, draw_published, draw_wide, nearest_ids
from mfuser_ros.training.distortion import NOT_SEEN
from mfuser_ros.training.geometry import OUTSIDE, Cuts, Geometry, sample
from mfuser_ros.training.targets import Targets, crop_targets
from mfuser_ros.vocabulary import UNKNOWN

Key = tuple[int, int]  # step, row of the source's part of the batch


class Window(NamedTuple):
    """What a worker sends: a piece of a picture in storage of one size, and where the crop lies in it."""

    picture: Tensor  # (3, H, W) uint8 RGB
    label: Tensor  # (H, W) uint8, 255 outside the picture
    size: Tensor  # (2,) height and width of what is not padding
    centre: Tensor  # (2,)
    factor: Tensor  # (2,)
    angle: Tensor  # ()
    flip: Tensor  # ()


class DiskSource:
    """One data set on disk. `fetch` brings the next windows to the device, `draw` makes crops of them."""

    def __init__(
        self, windows: Windows, samples: int, tables: tuple[Tensor, Tensor, Tensor], device: torch.device, workers: int
    ) -> None:
        """Prepare storage on the device.

        Args:
            windows: reads and cuts.
            samples: of each batch, over all processes.
            tables: membership, weight and presence of the set's labels, on the device.
            device: where crops are made.
            workers: processes that read; 0 reads here.

        Raises:
            ConfigurationError: the processes do not divide the samples.
        """
        self.samples = samples
        self._windows, self._workers, self._tables = windows, workers, tables
        self._outside = NOT_SEEN if windows.published else OUTSIDE
        rows = processes.own_rows([samples], torch.device("cpu"))
        self._rows = range(samples) if rows is None else rows.tolist()
        B, (H, W) = len(self._rows), windows.storage
        # the same tensors in every step, so that a CUDA graph can read them
        self._now = Window(
            torch.zeros(B, 3, H, W, dtype=torch.uint8, device=device),
            torch.full((B, H, W), UNKNOWN, dtype=torch.uint8, device=device),
            torch.ones(B, 2, device=device),
            torch.ones(B, 2, device=device),
            torch.ones(B, 2, device=device),
            torch.zeros(B, device=device),
            torch.ones(B, device=device),
        )
        self._coming: Iterator[Window | str] | None = None
        self._next = -1

    def fetch(self, step: int) -> None:
        """Bring the windows of this step (counted from 0) to the device.

        Raises:
            DatasetError: a file cannot be read; the text names it.
        """
        if self._coming is None or step != self._next:
            self._coming = iter(self._loader(step))
        batch = next(self._coming)
        if isinstance(batch, str):
            raise DatasetError(batch)
        for ours, theirs in zip(self._now, batch, strict=True):
            ours.copy_(theirs, non_blocking=True)
        self._next = step + 1

    def draw(self, geometry: Geometry) -> tuple[Tensor, Targets]:
        """The crops of the windows that were fetched last, as `Source.draw` gives them."""
        now = self._now
        cuts = Cuts(now.centre, now.factor, now.angle, now.flip)
        picture, label = sample(now.picture, now.label, now.size, cuts, geometry.crop, self._outside)
        return picture, crop_targets(label, *self._tables)

    def _loader(self, start: int) -> DataLoader[Window | str]:
        return DataLoader(
            self._windows,
            batch_sampler=_Steps(start, self._rows),
            num_workers=self._workers,
            collate_fn=_stacked,
            pin_memory=self._now.picture.is_cuda,
            worker_init_fn=_one_thread,
            prefetch_factor=2 if self._workers else None,
        )


class Windows(Dataset["Window | str"]):
    """Reads pictures of a set and cuts windows; `windows[step, row]` is always the same."""

    def __init__(
        self, dataset: LabelledSet, chosen: Sequence[int], counts: np.ndarray | None, config: SourceConfig,
        recipe: TrainConfig, number: int,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            dataset: the split.
            chosen: pictures of it that may be drawn.
            counts: (pictures, 19) pixels of each label in those; None where nothing is rare.
            config: how they are drawn.
            recipe: what is cut out of them, and the seed.
            number: of this source in the recipe.
        """
        self._dataset, self._chosen, self._crop, self._nominal = dataset, chosen, recipe.crop, config.nominal
        self._seed = (recipe.seed, number)
        self.published = recipe.augmentation == "published"
        self._draw = draw_published if self.published else draw_wide
        self._rare = config.rare_classes
        # pixels; a window that is larger (a large picture at a small scale) is shrunk to it
        self.storage = (2 * self._crop.size[0] + 8, 2 * self._crop.size[1] + 8)
        self._chance = np.full(len(chosen), 1 / len(chosen))
        self._by_class: _ByClass | None = None
        if counts is not None and self._rare is not None:
            self._by_class = _ByClass(counts, self._rare)
        elif counts is not None:
            factor = rare_factors(counts, config.rare)
            self._chance = factor / factor.sum()

    def __getitem__(self, key: Key) -> Window | str:
        """The window of a step and row, or what is wrong with the file."""
        rng = np.random.default_rng((*self._seed, *key))
        wanted = None
        if self._by_class is None:
            index = int(rng.choice(len(self._chosen), p=self._chance))
        else:
            wanted, index = self._by_class.draw(rng)
        try:
            picture, label, _ = self._dataset[self._chosen[index]]
        except MFuserError as error:
            return str(error)  # an exception would reach the other process as several lines
        return cut_window(picture, label, self._draw_crop(rng, label, wanted), self._crop.size, self.storage)

    def _draw_crop(self, rng: np.random.Generator, label: np.ndarray, wanted: int | None) -> Crop:
        crop = self._draw(rng, label, self._crop, self._nominal)
        if self._rare is not None:
            for _ in range(self._rare.tries - 1):
                if np.count_nonzero(nearest_ids(label, crop, self._crop.size) == wanted) > self._rare.crop_pixels:
                    break
                crop = self._draw(rng, label, self._crop, self._nominal)
        return crop


class _ByClass:
    """Draws a class, then a picture that shows enough of it (spec 6.5)."""

    def __init__(self, counts: np.ndarray, rare: RareClasses) -> None:
        self._files = [np.flatnonzero(counts[:, label] > rare.picture_pixels) for label in range(CLASSES)]
        share = counts.sum(0) / max(counts.sum(), 1)
        shown = np.array([len(files) > 0 for files in self._files])
        if not shown.any():
            raise ConfigurationError(
                f"rare_classes.picture_pixels {rare.picture_pixels}: no picture shows so much of a class: lower it"
            )
        weight = np.where(shown, np.exp((1 - share) / rare.temperature), 0)
        self.chance = weight / weight.sum()

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        label = int(rng.choice(CLASSES, p=self.chance))
        return label, int(rng.choice(self._files[label]))


class _Steps:
    """The keys of each step's samples, without end."""

    def __init__(self, start: int, rows: Sequence[int]) -> None:
        self._start, self._rows = start, rows

    def __iter__(self) -> Iterator[list[Key]]:
        step = self._start
        while True:
            yield [(step, row) for row in self._rows]
            step += 1


def cut_window(
    picture: np.ndarray, label: np.ndarray, crop: Crop, size: tuple[int, int], storage: tuple[int, int]
) -> Window:
    """The piece of a picture that a crop needs.

    Args:
        picture: (H, W, 3) uint8 RGB.
        label: (H, W) uint8.
        crop: where it lies.
        size: height and width of the crop.
        storage: height and width that the window is padded, or shrunk, to.
    """
    cos, sin = abs(np.cos(crop.angle)), abs(np.sin(crop.angle))
    turned = np.array([cos * size[0] + sin * size[1], cos * size[1] + sin * size[0]])
    half = turned / 2 / crop.factor
    whole = np.array(label.shape)
    low = np.clip(np.floor(crop.centre - half).astype(int) - 1, 0, whole - 1)
    high = np.clip(np.ceil(crop.centre + half).astype(int) + 1, low + 1, whole)
    picture, label = picture[low[0] : high[0], low[1] : high[1]], label[low[0] : high[0], low[1] : high[1]]
    box = high - low
    shrink = min(1.0, *(np.array(storage) / box))
    kept = np.maximum(np.floor(box * shrink).astype(int), 1)
    if shrink < 1:
        picture = cv2.resize(picture, (int(kept[1]), int(kept[0])), interpolation=cv2.INTER_AREA)
        label = cv2.resize(label, (int(kept[1]), int(kept[0])), interpolation=cv2.INTER_NEAREST)
    ratio = kept / box
    below, right = np.array(storage) - kept
    # the rim of the picture goes on in the padding, where bilinear sampling reaches half a pixel beyond it
    padded = cv2.copyMakeBorder(picture, 0, int(below), 0, int(right), cv2.BORDER_REPLICATE)
    ids = cv2.copyMakeBorder(label, 0, int(below), 0, int(right), cv2.BORDER_CONSTANT, value=UNKNOWN)
    return Window(
        torch.from_numpy(padded.transpose(2, 0, 1).copy()),
        torch.from_numpy(ids),
        torch.from_numpy(kept.astype(np.float32)),
        torch.from_numpy(((crop.centre - low) * ratio).astype(np.float32)),
        torch.from_numpy((crop.factor / ratio).astype(np.float32)),
        torch.tensor(crop.angle, dtype=torch.float32),
        torch.tensor(-1.0 if crop.mirrored else 1.0),
    )


def label_pixels(dataset: LabelledSet, chosen: Sequence[int], cache: Path | None) -> np.ndarray:
    """Pixels of each label in each of the chosen pictures of a set, (pictures, 19).

    Args:
        dataset: the split; all its labels are read once.
        chosen: pictures of it.
        cache: file that keeps the result (.npz); one that belongs to other pictures is written anew.

    Raises:
        DatasetError: a file of the set is wrong.
    """
    stems = [dataset.stems[index] for index in chosen]
    if cache is not None and cache.is_file():
        with np.load(cache) as kept:
            if kept["stems"].tolist() == stems:
                return np.asarray(kept["pixels"])
    with ThreadPoolExecutor() as pool:
        rows = pool.map(lambda index: np.bincount(dataset[index].label.ravel(), minlength=256)[:CLASSES], chosen)
        pixels = np.stack(list(rows))
    if cache is not None and processes.rank() == 0:
        part = cache.with_suffix(".part.npz")
        np.savez_compressed(part, stems=np.array(stems), pixels=pixels)
        part.replace(cache)
    return pixels


def rare_factors(counts: np.ndarray, rare: dict[int, float]) -> np.ndarray:
    """How much more often each picture is drawn; one with several rare labels takes its largest factor."""
    factor = np.ones(len(counts))
    for label, times in rare.items():
        factor = np.maximum(factor, np.where(counts[:, label] > 0, times, 1))
    return factor


def _stacked(windows: list[Window | str]) -> Window | str:
    faults = [window for window in windows if isinstance(window, str)]
    if faults:
        return faults[0]
    fields = zip(*windows, strict=True)  # windows alone are left
    return Window(*(torch.stack([torch.as_tensor(value) for value in field]) for field in fields))


def _one_thread(worker: int) -> None:  # noqa: ARG001  # torch gives the number
    cv2.setNumThreads(0)  # as many workers as cores each need one
