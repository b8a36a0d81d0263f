"""Make a model's confidence honest: a temperature, and the probability below which a pixel is unknown.

Both are fitted on source data (cityscapes256/val and what a recipe leaves out of its training), never on the sets that
measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mfuser_ros.checkpoints.store import ModelFile, load_model, write_description
from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.dataset import Probabilities
from mfuser_ros.vocabulary import UNKNOWN

PIXELS = 4000  # of each picture; neighbours say much the same
LOST = 0.02  # share of the right pixels that the threshold may turn into unknown
_STEPS = 1000


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels of a set, drawn at random, and what the network says of them at a temperature of 1."""

    probability: Tensor  # (N, 19) float32
    label: Tensor  # (N,) int64 label ids of the set
    members: Tensor  # (labels, 19) bool: the classes of each label
    pictures: int

    @property
    def member(self) -> Tensor:
        """(N, 19) bool: the classes that a pixel's label allows."""
        return self.members[self.label]

    def by_label(self, temperature: float) -> Tensor:
        """(N, labels) probability of each label of the set: those of its classes add up."""
        return _tempered(self.probability, temperature) @ self.members.float().t()


@dataclass(frozen=True)
class Fit:
    """What was fitted, and on how much."""

    temperature: float
    threshold: float
    nll_before: float  # mean over the pixels, at a temperature of 1
    nll_after: float
    pixels: int


def draw(samples: Iterable[Sample], config: DatasetConfig, probabilities: Probabilities, *, seed: int = 0) -> Pixels:
    """Draw labelled pixels, at most PIXELS of each picture.

    Args:
        samples: labelled pictures.
        config: their set.
        probabilities: of the network at a temperature of 1.
        seed: of the choice of pixels.

    Raises:
        DatasetError: no pixel carries a label.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, labels, pictures = [], [], 0
    for sample in samples:
        height, width = sample.label.shape
        label = torch.from_numpy(sample.label.astype(np.int64)).flatten()
        places = (label != UNKNOWN).nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=generator)[:PIXELS]]
        probability = probabilities([sample.picture], (height, width))[0].float().cpu()
        rows.append(probability.flatten(1).t()[places])
        labels.append(label[places])
        pictures += 1
    if not sum(map(len, labels)):
        raise DatasetError(f"{config.name}: no labelled pixel to fit on: give a split with labels")
    members = torch.from_numpy(config.membership()[: max(label.id for label in config.labels) + 1])
    return Pixels(torch.cat(rows), torch.cat(labels), members, pictures)


def fit_sets(sets: Sequence[Pixels], *, lost: float = LOST) -> Fit:
    """Fit one temperature and one threshold for several sets, which count alike whatever their sizes.

    The temperature has the least mean over the sets of the negative log likelihood; the threshold is the largest that
    turns at most `lost` of the right pixels of any of them into unknown.

    Args:
        sets: one or more.
        lost: share of the right pixels of a set that may become unknown.
    """

    def nll(temperature: float) -> float:
        return float(np.mean([mean_nll(pixels, temperature) for pixels in sets]))

    temperature = _least(nll)
    thresholds = []
    for pixels in sets:
        best, guess = pixels.by_label(temperature).max(1)
        thresholds.append(choose_threshold(best[guess == pixels.label].numpy(), lost))
    return Fit(
        temperature=temperature,
        threshold=min(thresholds),
        nll_before=nll(1.0),
        nll_after=nll(temperature),
        pixels=sum(len(pixels.label) for pixels in sets),
    )


def fit_temperature(probability: Tensor, member: Tensor) -> float:
    """The temperature with the least mean negative log likelihood, between 0.25 and 4.

    Args:
        probability: (N, K) at a temperature of 1.
        member: (N, K) bool, the classes that the label of a pixel allows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2; here on scores
    instead of logits: p_c^(1/T) / sum_k p_k^(1/T).
    """
    return _least(lambda temperature: _nll(probability, member, temperature))


def _least(nll: Callable[[float], float]) -> float:
    """Where it is least, between 0.25 and 4."""
    found = minimize_scalar(
        lambda log_t: nll(float(np.exp(log_t))), bounds=(np.log(0.25), np.log(4)), method="bounded",
        options={"xatol": 1e-3},
    )  # fmt: skip
    return round(float(np.exp(found.x)), 4)


def choose_threshold(right: np.ndarray, lost: float = LOST) -> float:
    """The largest threshold, in thousandths, that turns at most `lost` of the right pixels into unknown.

    Args:
        right: (N,) probability of the best label where it is right.
        lost: share of them that may fall below.
    """
    if not len(right):
        return 0.0
    return int(np.quantile(right, lost) * _STEPS) / _STEPS


def write_fit(path: Path, fitted: Fit) -> ModelFile:
    """Write temperature and threshold into the YAML beside the weights at `path`, which stay as they are."""
    _, description = load_model(path)
    content = description.model_dump() | {
        "temperature": fitted.temperature,
        "threshold": min(fitted.threshold, 0.999),
    }
    file = ModelFile.model_validate(content)
    write_description(file, path)
    return file


def mean_nll(pixels: Pixels, temperature: float) -> float:
    """Mean negative log likelihood of the pixels' labels."""
    return _nll(pixels.probability, pixels.member, temperature)


def _tempered(probability: Tensor, temperature: float) -> Tensor:
    raised = probability.clamp_min(1e-30) ** (1 / temperature)
    return raised / raised.sum(1, keepdim=True)


def _nll(probability: Tensor, member: Tensor, temperature: float) -> float:
    own = (_tempered(probability, temperature) * member).sum(1)
    return float(-own.clamp_min(1e-12).log().mean())
