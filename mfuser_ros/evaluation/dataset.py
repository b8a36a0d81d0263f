"""Evaluate a network on a labelled set, compared at the label's own size, one confusion matrix over the set.

Sets with coarser labels than the 19 classes are scored by grouping: the probabilities of a label's members add up,
and the best label wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.metrics import Calibration, Confusion
from mfuser_ros.network.model import MFuser, assemble
from mfuser_ros.vocabulary import UNKNOWN

Size = tuple[int, int]  # height, width
Probabilities = Callable[[list[np.ndarray], Size], Tensor]
"""Pictures of one size, and the size of the answer, to (B, 19, height, width) float32 probabilities on any device."""


class Judged(NamedTuple):
    """One picture and what the network said of it."""

    sample: Sample
    prediction: np.ndarray  # (H, W) uint8 label ids of the set, 255 unknown
    probability: np.ndarray  # (H, W) float32 of the best label, 0..1
    confusion: Confusion  # of this picture
    calibration: Calibration  # of this picture
    latency_ms: float  # of the network; shared evenly in a batch


@dataclass
class Evaluation:
    """What was counted on one set."""

    config: DatasetConfig
    confusion: Confusion
    calibration: Calibration
    frames: int = 0


def evaluate(
    samples: Iterable[Sample],
    config: DatasetConfig,
    probabilities: Probabilities,
    *,
    threshold: float = 0.0,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
    watch: Callable[[Judged], None] | None = None,
) -> Evaluation:
    """Run over a set.

    Args:
        samples: pictures and labels; neighbours of one size go through together.
        config: the set; its labels must be a partition of the 19 classes.
        probabilities: the network.
        threshold: a label less probable than this is unknown, which counts as wrong.
        batch: pictures at once.
        progress: called with the number of pictures after each batch.
        watch: called with each picture once it is judged, such as `Record.add` of mfuser_ros.evaluation.record.

    Raises:
        DatasetError: the labels are no partition, so that no score makes sense.
    """
    if not config.is_partition:
        raise DatasetError(f"{config.name}: its labels share classes or leave some out: it is for training only")
    classes = len(config.labels)
    result = Evaluation(config, Confusion.empty(classes), Calibration.empty())
    members = torch.from_numpy(config.membership()[:classes].astype(np.float32))  # (C, 19)
    for group in _batches(samples, batch):
        start = time.perf_counter()
        size = group[0].label.shape
        fine = probabilities([sample.picture for sample in group], (size[0], size[1]))  # (B, 19, H, W)
        coarse = torch.einsum("gk,bkhw->bghw", members.to(fine.device), fine)
        best, ids = coarse.max(1)
        ids = torch.where(best < threshold, UNKNOWN, ids).to(torch.uint8)
        answers = zip(best.cpu().numpy(), ids.cpu().numpy(), strict=True)
        latency_ms = (time.perf_counter() - start) * 1e3 / len(group)
        for sample, (probability, prediction) in zip(group, answers, strict=True):
            judged = _judged(sample, prediction, probability.clip(0, 1), classes, latency_ms)
            result.confusion.counts += judged.confusion.counts
            result.calibration.merge(judged.calibration)
            if watch:
                watch(judged)
        result.frames += len(group)
        if progress:
            progress(result.frames)
    return result


def _judged(sample: Sample, prediction: np.ndarray, probability: np.ndarray, classes: int, latency_ms: float) -> Judged:
    confusion, calibration = Confusion.empty(classes), Calibration.empty()
    confusion.add(sample.label, prediction)
    seen = (sample.label != UNKNOWN) & (prediction != UNKNOWN)
    calibration.add(probability[seen], prediction[seen] == sample.label[seen])
    return Judged(sample, prediction, probability, confusion, calibration, latency_ms)


def network_probabilities(model: MFuser, device: torch.device, input_size: Size) -> Probabilities:
    """A network's probabilities for pictures stretched to `input_size`, in float32, temperature 1."""

    def run(pictures: list[np.ndarray], size: Size) -> Tensor:
        height, width = input_size
        stretched = np.stack([_stretched(picture, width, height) for picture in pictures])
        with torch.inference_mode():
            batch = torch.from_numpy(stretched).to(device).permute(0, 3, 1, 2).float()
            scores = assemble(model.predict(batch))
            probability = scores / scores.sum(1, keepdim=True).clamp_min(1e-30)
            return F.interpolate(probability, size, mode="bilinear")

    return run


def _stretched(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation))


def _batches(samples: Iterable[Sample], batch: int) -> Iterable[list[Sample]]:
    group: list[Sample] = []
    for sample in samples:
        if group and (len(group) == batch or group[0].picture.shape != sample.picture.shape):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group
